"""TF-IDF cosine of texts: all pairs above a limit at once, and one text after another.

Both find pairs without comparing each with all: with the rarest words first, two texts whose cosine is above the
limit share a word of that first part of either text whose rest weighs less than the limit (L2 prefix filter, Anastasiu
and Karypis 2014).
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from jobs.measure.terms import tfidf

SAME_COSINE = 0.8
"""Cosine above which two texts count as nearly the same."""
_ROWS = 500


def alike(texts: Sequence[str], groups: Sequence[int] = ()) -> Iterator[tuple[int, int, float]]:
    """Pairs of positions (smaller first) whose cosine is above `SAME_COSINE`, with the cosine.

    Args:
        texts: the texts.
        groups: for each text a number; pairs within one group are left out unlooked at.
    """
    limit, known = SAME_COSINE, np.array(groups or range(len(texts)))
    matrix = tfidf(texts)
    if not matrix.shape[1]:
        return
    first = _prefixes(matrix, limit)
    columns = first.T.tocsr()
    for start in range(0, len(texts), _ROWS):
        shared = (first[start : start + _ROWS] @ columns).tocoo()
        rows, others = shared.row.astype(np.int64) + start, shared.col.astype(np.int64)
        keep = (others < rows) & (known[others] != known[rows])
        rows, others = rows[keep], others[keep]
        for part in range(0, len(rows), 100_000):
            left, right = rows[part : part + 100_000], others[part : part + 100_000]
            scores = np.asarray(matrix[left].multiply(matrix[right]).sum(axis=1)).ravel()
            for at in np.flatnonzero(scores > limit):
                yield int(right[at]), int(left[at]), float(min(1.0, scores[at]))


def _prefixes(matrix: Any, limit: float) -> Any:
    """The matrix with only the rarest terms of each row: what is left out weighs less than the limit."""
    from scipy.sparse import csr_matrix

    frequency = np.bincount(matrix.indices, minlength=matrix.shape[1])
    # One order for all rows, rarest first: a term's place in it decides, the column number breaks ties.
    place = np.empty(len(frequency), dtype=np.int64)
    place[np.lexsort((np.arange(len(frequency)), frequency))] = np.arange(len(frequency))
    row_of = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((place[matrix.indices], row_of))
    weight = matrix.data[order].astype(np.float64)
    columns, rows = matrix.indices[order], row_of[order]
    before = np.cumsum(weight**2) - weight**2
    starts = np.zeros(matrix.shape[0])
    filled = np.diff(matrix.indptr) > 0
    starts[filled] = before[matrix.indptr[:-1][filled]]
    # Float sums drift: keep a little more than needed.
    keep = before - starts[rows] <= 1 - limit**2 + 1e-4
    return csr_matrix((np.ones(keep.sum(), dtype=np.float32), (rows[keep], columns[keep])), shape=matrix.shape)


@dataclass
class Stream:
    """Texts added one by one; weights follow the texts so far, so early ones are an approximation of `alike`."""

    _terms: list[Mapping[str, float]] = field(default_factory=list)
    _frequency: Counter[str] = field(default_factory=Counter)
    _rows_of: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def near(self, terms: Mapping[str, float]) -> Iterator[int]:
        """Positions of added texts whose cosine with these terms is above the limit."""
        total = self._length(terms) ** 2
        rest, seen = total, set[int]()
        for term in sorted(terms, key=lambda term: (self._frequency[term], term)):
            if rest <= SAME_COSINE**2 * total:
                return
            rest -= (terms[term] * self._rarity(term)) ** 2
            for row in self._rows_of.get(term, ()):
                if row not in seen:
                    seen.add(row)
                    if self._cosine(terms, self._terms[row], math.sqrt(total)) > SAME_COSINE:
                        yield row

    def add(self, terms: Mapping[str, float]) -> None:
        """Remember a text's terms under the next position."""
        for term in terms:
            self._rows_of[term].append(len(self._terms))
        self._frequency.update(terms.keys())
        self._terms.append(terms)

    def _cosine(self, one: Mapping[str, float], other: Mapping[str, float], length: float) -> float:
        both = sum(one[term] * other[term] * self._rarity(term) ** 2 for term in one.keys() & other.keys())
        return both / (length * self._length(other))

    def _length(self, terms: Mapping[str, float]) -> float:
        return math.sqrt(sum((weight * self._rarity(term)) ** 2 for term, weight in terms.items()))

    def _rarity(self, term: str) -> float:
        return math.log((1 + len(self._terms)) / (1 + self._frequency[term])) + 1


def terms_of(text: str) -> dict[str, float]:
    """Single words and pairs of words with their dampened counts, as scikit-learn counts them."""
    words = re.findall(r"\b\w\w+\b", text.lower())
    counts = Counter(words)
    counts.update(f"{one} {other}" for one, other in pairwise(words))
    return {term: 1 + math.log(count) for term, count in counts.items()}
