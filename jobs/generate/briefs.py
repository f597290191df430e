"""What every wanted prompt should be like: quotas over direction, topic, task, format, register, length and more.

Every value of a dimension has its share of a principle's prompts, and no two dimensions go hand in hand: where every
argument were about money, a model could not tell what of the two it was taught about.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten

from jobs.common.constitution import Constitution, Principle
from jobs.common.generate_settings import GenerateSettings
from jobs.generate.wording_prompts import DIMENSIONS

SAID = 6
"""Values that a line on the console names."""


@dataclass(frozen=True)
class Brief:
    """What one prompt is asked to be."""

    values: Mapping[str, str]
    """A value of each dimension by its name; `context` is the constitution's own text. Empty where nothing is asked."""
    language: str
    """BCP 47 code."""


def plan_briefs(principle: Principle, constitution: Constitution, settings: GenerateSettings, seed: int) -> list[Brief]:
    """A brief for each wanted prompt of a principle, the same for the same recipe and constitution.

    A teacher that is asked for one prompt at a time is too small to follow a brief, so only languages are shared out.
    """
    choices: dict[str, Sequence[str]] = {"language": settings.languages or [constitution.language]}
    if settings.prompts_per_request > 1:
        choices |= {name: list(phrases) for name, phrases in DIMENSIONS.items()}
        choices |= {"context": principle.context} if principle.context else {}
    rows = balanced(settings.prompts_per_principle, choices, f"{seed}:{principle.id}")
    return [Brief(row, row.pop("language")) for row in rows]


def balanced(count: int, choices: Mapping[str, Sequence[str]], key: str) -> list[dict[str, str]]:
    """Combinations in which every value has its share from the first row on, and pairs of values meet evenly.

    Row by row each dimension takes, of the values it has used least so far, the one that has met the row's other values
    least; what is still even is drawn by a hash of the key.

    Args:
        count: rows wanted.
        choices: the values of each dimension; a value that comes twice counts once.
        key: other keys draw other combinations.

    Returns:
        Rows in which, up to any row, a dimension's values differ by at most one in how often they came.
    """
    values = {name: list(dict.fromkeys(listed)) for name, listed in choices.items()}
    rows: list[dict[str, str]] = [{} for _ in range(count)]
    met: Counter[tuple[str, str, str, str]] = Counter()
    for name, listed in values.items():
        used: Counter[str] = Counter()
        for number, row in enumerate(rows):
            least = min(used[value] for value in listed)
            free = [value for value in listed if used[value] == least]
            costs = [
                (
                    sum((met[name, value, other, row[other]] * len(values[other])) ** 2 for other in row),
                    _draw(key, name, value, number),
                )
                for value in free
            ]
            chosen = free[costs.index(min(costs))]
            used[chosen] += 1
            for other in row:
                met[name, chosen, other, row[other]] += 1
            row[name] = chosen
    return rows


def lacking(wanted: Sequence[Brief], still_open: Sequence[Brief]) -> list[str]:
    """The values that the open briefs lack most, such as `format table` or `language zu`, worst first.

    Args:
        wanted: all briefs of a principle.
        still_open: those of them without a prompt.

    Returns:
        At most SAID values of which at least half is open; where there are none, those that lack most.
    """
    every, left = _values(wanted), _values(still_open)
    # A value that every brief has says nothing.
    shares = {value: count / every[value] for value, count in left.items() if every[value] < len(wanted)}
    ordered = sorted(shares, key=lambda value: (-shares[value], -left[value], value))
    found = [value for value in ordered if shares[value] >= 0.5] or ordered
    return [f"{name} {shorten(value, 60)}" for name, value in found[:SAID]]


def _values(briefs: Sequence[Brief]) -> Counter[tuple[str, str]]:
    return Counter(pair for brief in briefs for pair in (*brief.values.items(), ("language", brief.language)))


def _draw(*parts: object) -> bytes:
    return hashlib.blake2b(":".join(map(str, parts)).encode(), digest_size=8).digest()
