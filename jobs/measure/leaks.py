"""Prompts that two splits hold: word for word, one inside the other, or nearly the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from jobs.measure.data import Data, Example, Pair
from jobs.measure.findings import Leak
from jobs.measure.near import clusters, near_pairs, plain
from jobs.measure.texts import bare_words

SPLITS = ("held_out", "sft", "dpo")
_KEY = 6
"""Fewest words of a prompt that is looked for inside others."""

_Members = dict[str, tuple[str, str]]
"""Prompts of one split: plain text to the first row's id and its text."""


def leaks(data: Data, cluster_of: Sequence[int]) -> tuple[list[Leak], dict[tuple[str, str], int]]:
    """Every prompt of a later split that an earlier one holds too, once per two splits, and how many there are.

    Where the source has no splits its supervised rows stand for `sft` and its pairs for `dpo`.

    Args:
        data: the rows.
        cluster_of: near-duplicate cluster of each prompt; used where they hold every text.
    """
    parts = _parts(data)
    texts = list(dict.fromkeys(text for members in parts.values() for text in members))
    near = _clusters(data, cluster_of, texts)
    found: list[Leak] = []
    matrix: dict[tuple[str, str], int] = {}
    for first, second in combinations([split for split in SPLITS if split in parts], 2):
        both = list(_between((first, parts[first]), (second, parts[second]), near))
        matrix[first, second] = len(both)
        found += both
    return found, matrix


def _parts(data: Data) -> dict[str, _Members]:
    parts: dict[str, _Members] = defaultdict(dict)
    for prompt in data.prompts:
        if prompt.split:
            parts[prompt.split].setdefault(plain(prompt.text), (prompt.id, prompt.text))
    rows: list[Example | Pair] = [*data.examples, *data.pairs]
    for row in rows:
        if row.split:
            parts[row.split].setdefault(plain(row.prompt), (row.id, row.prompt))
    return dict(parts)


def _between(one: tuple[str, _Members], other: tuple[str, _Members], near: Mapping[str, int]) -> Iterator[Leak]:
    (first, ours), (second, theirs) = one, other
    held, holding = _Contained(ours), _Contained(theirs)
    by_cluster: dict[int, str] = {}
    for text in ours:
        by_cluster.setdefault(near[text], text)
    inside = {text: found for found, (_, prompt) in ours.items() for text in holding.within(prompt)}
    for text, (row, prompt) in theirs.items():
        if text in ours:
            yield Leak(first, second, ours[text][0], row, "exact", prompt)
        elif match := inside.get(text) or next(held.within(prompt), None):
            yield Leak(first, second, ours[match][0], row, "contained", prompt)
        elif match := by_cluster.get(near[text]):
            yield Leak(first, second, ours[match][0], row, "near", prompt)


class _Contained:
    """Finds prompts inside a longer text: their first words say where to look, all their words whether it is one.

    Prompts that begin alike cost no more than others: at one place there is one look for each of their lengths.
    """

    def __init__(self, members: _Members) -> None:
        self._lengths: dict[tuple[str, ...], tuple[int, ...]] = {}
        self._whole: dict[tuple[str, ...], tuple[str, ...]] = {}
        for text in members:
            found = tuple(bare_words(text))
            if len(found) >= _KEY:
                lengths = self._lengths.get(found[:_KEY], ())
                if len(found) not in lengths:
                    self._lengths[found[:_KEY]] = (*lengths, len(found))
                self._whole[found] = (*self._whole.get(found, ()), text)

    def within(self, text: str) -> Iterator[str]:
        """Plain texts of the prompts whose words stand in this text in a row."""
        found = tuple(bare_words(text))
        keys = list(zip(*(found[at:] for at in range(_KEY)), strict=False))
        if self._lengths.keys().isdisjoint(keys):
            return
        for at, key in enumerate(keys):
            for length in self._lengths.get(key, ()):
                if length <= len(found) - at:
                    yield from self._whole.get(found[at : at + length], ())


def _clusters(data: Data, cluster_of: Sequence[int], texts: Sequence[str]) -> dict[str, int]:
    known = {plain(prompt.text): cluster for prompt, cluster in zip(data.prompts, cluster_of, strict=True)}
    if all(text in known for text in texts):
        return known
    return dict(zip(texts, clusters(len(texts), near_pairs(texts)), strict=True))
