"""A classifier that never sees the prompt: what it gets right, style alone gives away."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from jobs.measure.data import Data, Pair
from jobs.measure.families import families
from jobs.measure.findings import Near
from jobs.measure.measured import Blind, Share
from jobs.measure.near import clusters
from jobs.measure.shares import with_ties
from jobs.measure.terms import Terms, count_terms, frequency_of, weighted

FEWEST = 10
"""Pairs the classifier needs."""
FOLDS = 5
SAMPLE = 5000
"""Most pairs the classifier reads: from here on its accuracy is known to about one point."""
_TERMS = 15
_LEAST_TEXTS = 2


def sampled_pairs(data: Data, seed: int) -> list[int]:
    """Positions of the pairs the classifier reads, in order: all, or a random sample of them."""
    usable = [row for row, pair in enumerate(data.pairs) if pair.chosen.strip() and pair.rejected.strip()]
    if len(usable) <= SAMPLE:
        return usable
    return sorted(random.Random(f"blind:{seed}").sample(usable, SAMPLE))


def blind(data: Data, seed: int = 0) -> Blind | None:
    """Accuracy by pairs and what it rests on; None under 10 pairs with two sides or two families of prompts.

    Words and pairs of words (TF-IDF) into a logistic regression; folds never divide a prompt and its twins, then never
    a principle.
    """
    rows = sampled_pairs(data, seed)
    pairs = [data.pairs[row] for row in rows]
    groups = _groups(data, pairs)
    if len(pairs) < FEWEST or len(set(groups)) < 2:
        return None
    terms = count_terms(_sides(pairs))
    principles = [pair.principle_id for pair in pairs]
    known = len(set(principles)) > 1 and all(principles)
    margins = _out_of_fold(terms, groups)
    for_chosen, for_rejected = _strongest(terms)
    return Blind(
        by_prompt=_accuracy(margins),
        by_principle=_accuracy(_out_of_fold(terms, principles)) if known else None,
        for_chosen=for_chosen,
        for_rejected=for_rejected,
        margins={row: float(margin) for row, margin in zip(rows, margins, strict=True)},
    )


def transfer(train: Data, test: Data, seed: int = 0) -> float | None:
    """Pairs of `test` that a classifier trained on the pairs of `train` gets right, as a share.

    None with fewer than 10 pairs to train on, or none to test.
    """
    pairs = [train.pairs[row] for row in sampled_pairs(train, seed)]
    if len(pairs) < FEWEST or not test.pairs:
        return None
    terms = count_terms([*_sides(pairs), *_sides(test.pairs)])
    scores = _Model(terms, np.arange(2 * len(pairs)), _labels(len(pairs))).scores(
        np.arange(2 * len(pairs), terms.matrix.shape[0])
    )
    return _accuracy(scores[: len(test.pairs)] - scores[len(test.pairs) :]).value


class _Model:
    """TF-IDF of terms that two texts to learn from hold at least, and a logistic regression on them."""

    def __init__(self, terms: Terms, rows: Any, labels: Any) -> None:
        from sklearn.linear_model import LogisticRegression

        frequency = frequency_of(terms.matrix[rows])
        self.columns = np.flatnonzero(frequency >= _LEAST_TEXTS)
        self._terms, self._frequency, self._texts = terms, frequency[self.columns], len(rows)
        self.weights = np.zeros(len(self.columns))
        self._shift = 0.0
        if len(self.columns):
            fitted = LogisticRegression(C=10, max_iter=2000).fit(self._vectors(rows), labels)
            self.weights, self._shift = fitted.coef_[0], float(fitted.intercept_[0])

    def scores(self, rows: Any) -> Any:
        """Log-odds that these texts are chosen ones; all the same where there was no term to learn from."""
        return self._vectors(rows) @ self.weights + self._shift

    def _vectors(self, rows: Any) -> Any:
        return weighted(self._terms.matrix[rows][:, self.columns], self._frequency, self._texts)


def _sides(pairs: Sequence[Pair]) -> list[str]:
    """Chosen texts, then rejected ones."""
    return [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]


def _groups(data: Data, pairs: Sequence[Pair]) -> list[str]:
    """What no fold may divide: equal prompts, and families.

    A twin repeats its sibling's words: in another fold it would tell which side is chosen.
    """
    texts = {pair.prompt for pair in pairs}
    siblings = families(data.prompts)
    rows = [row for row, prompt in enumerate(data.prompts) if prompt.text in texts]
    first: dict[str, int] = {}
    equal = [Near(first.setdefault(data.prompts[row].text, at), at, "exact", 1.0) for at, row in enumerate(rows)]
    numbers = clusters(len(rows), equal, [siblings[row] for row in rows])
    return [str(numbers[first[pair.prompt]]) if pair.prompt in first else pair.prompt for pair in pairs]


def _labels(pairs: int) -> Any:
    return np.repeat([1, 0], pairs)


def _out_of_fold(terms: Terms, groups: Sequence[str]) -> Any:
    """By pair: log-odds of chosen minus those of rejected, from a model that never saw the group."""
    from sklearn.model_selection import GroupKFold

    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    both = np.array([numbers[group] for group in groups] * 2)
    labels, scores = _labels(len(groups)), np.zeros(len(both))
    for train, test in GroupKFold(min(FOLDS, len(numbers))).split(both, labels, both):
        scores[test] = _Model(terms, train, labels[train]).scores(test)
    return scores[: len(groups)] - scores[len(groups) :]


def _accuracy(margins: Any) -> Share:
    return with_ties(int((margins > 0).sum()), int((margins == 0).sum()), len(margins))


def _strongest(terms: Terms) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """The terms that speak most for each side."""
    texts = terms.matrix.shape[0]
    model = _Model(terms, np.arange(texts), _labels(texts // 2))
    order = np.argsort(model.weights, kind="stable")
    named = [(terms.name(model.columns[at]), float(model.weights[at])) for at in (*order[:_TERMS], *order[-_TERMS:])]
    return [one for one in named[::-1] if one[1] > 0][:_TERMS], [one for one in named if one[1] < 0][:_TERMS]
