"""What the measures found in rows, each named by its position in `Data.prompts`, `Data.examples` or `Data.pairs`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Part = Literal["prompts", "examples", "pairs"]


@dataclass(frozen=True, slots=True)
class Malformed:
    """One row with something in it that does not belong."""

    part: Part
    row: int
    reason: str
    """`prompt_drift`, `template`, `role_confusion`, `meta_talk`, `truncated`, `zero_width`, `language`, `empty`,
    `echo`, `demonstration`, `same_sides`."""
    detail: str
    """The very words that were seen."""


@dataclass(frozen=True, slots=True)
class Near:
    """Two prompts that are the same or nearly so; never a prompt and its own twin."""

    first: int
    second: int
    method: Literal["exact", "minhash", "tfidf"]
    score: float


@dataclass(frozen=True, slots=True)
class Leak:
    """A prompt that two splits hold, word for word or nearly so."""

    first_split: str
    second_split: str
    first: str
    """Id of the row in the first split."""
    second: str
    method: Literal["exact", "contained", "near"]
    """`contained`: one prompt holds the other after template strings are stripped."""
    prompt: str
