"""How answers begin, and what kind of answers they are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from jobs.measure.data import Data
from jobs.measure.measured import Openings, Share, Types
from jobs.measure.shares import better_rule, share
from jobs.measure.texts import opening, refuses, response_type

_SHOWN = 20
_ANSWERS = ("chosen", "rejected", "completion")


def openings(data: Data) -> Openings:
    """First five words of prompts and answers."""
    counted = {name: Counter(opening(text) for text in texts) for name, texts in _fields(data) if name != "answer"}
    entropy = {name: _entropy(counts) for name, counts in counted.items() if counts}
    largest = max(
        (
            (counts[first] / counts.total(), name, first)
            for name, counts in counted.items()
            if name in _ANSWERS
            for first, _ in counts.most_common(1)
        ),
        default=(0.0, "", ""),
    )
    return Openings(
        top={name: counts.most_common(_SHOWN) for name, counts in counted.items()},
        entropy_bits=entropy,
        largest_share=largest[0],
        largest=largest[2],
        largest_field=largest[1],
    )


def types(data: Data) -> Types:
    """Response types, refusals, and whether refusing alone tells the sides apart."""
    texts = {name: list(found) for name, found in _fields(data) if name != "prompt"}
    declined = {name: [refuses(text) for text in found] for name, found in texts.items()}
    pairs = list(zip(declined["chosen"], declined["rejected"], strict=True))
    right, wrong = sum(one and not other for one, other in pairs), sum(other and not one for one, other in pairs)
    return Types(
        by_field={name: dict(Counter(map(response_type, found))) for name, found in texts.items() if found},
        refusals={name: share(sum(found), len(found)) for name, found in declined.items() if found},
        refusal_only=better_rule(right, wrong, len(pairs))[0],
        declined_twins=_declined_twins(data, declined),
    )


def _fields(data: Data) -> Iterator[tuple[str, Iterator[str]]]:
    yield "prompt", (prompt.text for prompt in data.prompts)
    yield "chosen", (pair.chosen for pair in data.pairs)
    yield "rejected", (pair.rejected for pair in data.pairs)
    yield "completion", (row.completion for row in data.examples)
    yield "answer", (prompt.answer for prompt in data.prompts if prompt.answer)


def _declined_twins(data: Data, declined: dict[str, list[bool]]) -> Share | None:
    found = [no for pair, no in zip(data.pairs, declined["chosen"], strict=True) if pair.kind == "benign_twin"]
    found += [no for row, no in zip(data.examples, declined["completion"], strict=True) if row.kind == "benign_twin"]
    return share(sum(found), len(found)) if found else None


def _entropy(counts: Counter[str]) -> float:
    """Entropy in bits: 0 where all begin alike, log2 of the rows where none do."""
    total = counts.total()
    return abs(sum(count / total * math.log2(count / total) for count in counts.values()))
