"""Prompts that are the same or nearly so: word for word, by shared pieces, by shared words, by TF-IDF cosine."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import Literal

from datasketch import MinHash, MinHashLSH

from jobs.measure.cosine import Stream, alike, terms_of
from jobs.measure.findings import Near
from jobs.measure.minhash import SAME_PIECES, bands, proposed, shared_pieces, signature

SAME_WORDS = 0.8
"""Overlap of two prompts' words (Jaccard) from which they count as the same."""
_STRAIGHT = {0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"'}


def plain(text: str) -> str:
    """A text for exact comparison: small letters, one blank between words, curly quotes straightened."""
    return " ".join(text.lower().translate(_STRAIGHT).split())


@dataclass
class _Seen:
    """A text with what the tests of sameness need; computed once."""

    text: str

    @cached_property
    def words(self) -> frozenset[str]:
        return frozenset(re.findall(r"\w+", self.text.lower()))

    @cached_property
    def sketch(self) -> MinHash:
        return signature(self.text)

    @cached_property
    def terms(self) -> dict[str, float]:
        return terms_of(self.text)

    @property
    def word_keys(self) -> list[tuple[str, ...]]:
        """Pairs of words of which two overlapping sets share at least one (prefix filter, Chaudhuri et al. 2006).

        Sets that share `n * SAME_WORDS` of n words share two among all but that many plus two, in any one order;
        longest first, since long words are rare.
        """
        ordered = sorted(self.words, key=lambda word: (-len(word), word))
        first = ordered[: len(ordered) - math.ceil(SAME_WORDS * len(ordered)) + 2]
        return list(combinations(first, 2)) if len(first) > 1 else [tuple(first)]


@dataclass
class Distinct:
    """Prompts that are not the same as one another, added one by one, without comparing each with all.

    TF-IDF weights follow the prompts so far, so a pair just around the limit may be judged otherwise than by
    `near_pairs`, which sees all of them.
    """

    _by_text: dict[str, int] = field(default_factory=dict)
    _texts: list[str] = field(default_factory=list)
    _words: list[frozenset[str]] = field(default_factory=list)
    _by_words: dict[tuple[str, ...], list[int]] = field(default_factory=lambda: defaultdict(list))
    _bands: MinHashLSH = field(default_factory=bands)
    _cosine: Stream = field(default_factory=Stream)
    _last: _Seen = field(default_factory=lambda: _Seen(""))

    def same_as(self, text: str, besides: Collection[str] = ()) -> str | None:
        """A prompt added before that says the same, if there is one other than `besides` (a twin's sibling)."""
        rows = self._rows(self._seen(text))
        return next((self._texts[row] for row in rows if self._texts[row] not in besides), None)

    def add(self, text: str) -> None:
        """Remember a prompt."""
        seen, row = self._seen(text), len(self._texts)
        self._by_text.setdefault(plain(text), row)
        self._texts.append(text)
        self._words.append(seen.words)
        for key in seen.word_keys:
            self._by_words[key].append(row)
        self._bands.insert(row, seen.sketch, check_duplication=False)
        self._cosine.add(seen.terms)

    def _seen(self, text: str) -> _Seen:
        if self._last.text != text:
            self._last = _Seen(text)
        return self._last

    def _rows(self, seen: _Seen) -> Iterator[int]:
        """Positions of the same prompts, cheapest test first; one may come more than once."""
        row = self._by_text.get(plain(seen.text))
        if row is not None:
            yield row
        for key in seen.word_keys:
            for row in self._by_words.get(key, ()):
                if _overlap(self._words[row], seen.words) >= SAME_WORDS:
                    yield row
        for row in self._bands.query(seen.sketch):
            if shared_pieces(self._texts[row], seen.text) >= SAME_PIECES:
                yield row
        yield from self._cosine.near(seen.terms)


def near_pairs(texts: Sequence[str], siblings: Sequence[str] = ()) -> list[Near]:
    """Links between prompts that are the same or nearly so, first the exact ones.

    Prompts alike in a ring are linked once around, never each with each: there are as many links as prompts that
    repeat an earlier one, and the linked sets are those that all pairs would give.

    Args:
        texts: the prompts.
        siblings: for each prompt, the name of its family (a prompt and its benign twin have one name, others none
            in common): members of one family are alike on purpose and never linked with each other.
    """
    families = list(siblings) or [str(row) for row in range(len(texts))]
    forest = _Forest(len(texts))
    found: list[Near] = []

    def link(first: int, second: int, method: Literal["exact", "minhash", "tfidf"], score: float) -> None:
        if families[first] != families[second] and forest.join(first, second):
            found.append(Near(first, second, method, score))

    firsts = _firsts(texts, families)
    for row, text in enumerate(texts):
        for first in firsts[plain(text)]:
            if first < row:
                link(first, row, "exact", 1.0)
    # Equal texts are settled: only one of each, or one of two families, is held against the others.
    rows = sorted(row for known in firsts.values() for row in known)
    left = [texts[row] for row in rows]
    for one, other in proposed(left):
        if not forest.joined(rows[one], rows[other]):
            score = shared_pieces(left[one], left[other])
            if score >= SAME_PIECES:
                link(rows[one], rows[other], "minhash", score)
    for one, other, score in alike(left, [forest.root(row) for row in rows]):
        link(rows[one], rows[other], "tfidf", score)
    return found


def clusters(count: int, near: Sequence[Near], siblings: Sequence[str] = ()) -> list[int]:
    """Cluster number of each of `count` prompts, in order of appearance; a family is always in one cluster."""
    forest = _Forest(count)
    for pair in near:
        forest.join(pair.first, pair.second)
    first_of: dict[str, int] = {}
    for row, family in enumerate(siblings):
        forest.join(first_of.setdefault(family, row), row)
    numbers: dict[int, int] = {}
    return [numbers.setdefault(forest.root(row), len(numbers)) for row in range(count)]


def _firsts(texts: Sequence[str], families: Sequence[str]) -> dict[str, list[int]]:
    """The first row of each text, and the first of another family: a sibling's copy may be nobody's sibling."""
    firsts: dict[str, list[int]] = defaultdict(list)
    for row, text in enumerate(texts):
        known = firsts[plain(text)]
        if len(known) < 2 and families[row] not in {families[first] for first in known}:
            known.append(row)
    return firsts


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    both = len(one & other)
    return both / max(1, len(one) + len(other) - both)


class _Forest:
    """Disjoint sets (union-find): which prompts are linked so far."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, row: int) -> int:
        """The smallest row of its set."""
        while self._parent[row] != row:
            self._parent[row] = self._parent[self._parent[row]]
            row = self._parent[row]
        return row

    def joined(self, one: int, other: int) -> bool:
        """Are both in one set?"""
        return self.root(one) == self.root(other)

    def join(self, one: int, other: int) -> bool:
        """Put both into one set; False where they were."""
        first, second = sorted((self.root(one), self.root(other)))
        self._parent[second] = first
        return first != second
