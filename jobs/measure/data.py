"""A dataset as the measures see it: prompts, supervised rows and pairs, whatever file they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

UNKNOWN = ""
"""Value of a field the source does not have: principle, split, language."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One user message and where it belongs."""

    id: str
    principle_id: str
    text: str
    split: str = UNKNOWN
    """`held_out`, `sft`, `dpo`, or unknown where the source has no splits."""
    kind: str = "red_team"
    """`red_team` or `benign_twin`."""
    twin_of: str = ""
    """Id of the red-team prompt a twin belongs to: the two are alike on purpose."""
    language: str = UNKNOWN
    """BCP 47 code asked for."""
    cluster: str = ""
    """Near-duplicate cluster of the split ledger, where the source has one."""
    answer: str = ""
    """Answer that came with the prompt (the original's red-team file), or empty."""


@dataclass(frozen=True, slots=True)
class Example:
    """One supervised row."""

    id: str
    principle_id: str
    prompt: str
    completion: str
    split: str = "sft"
    kind: str = "red_team"
    language: str = UNKNOWN
    source_prompt: str = ""
    """The prompt this row was made from, where the source says so: the row's own must equal it."""
    initial: str = ""
    """Initial response, where the source has it."""
    critique: str = ""
    """Critique, where the source has it."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One preference pair."""

    id: str
    principle_id: str
    prompt: str
    chosen: str
    rejected: str
    split: str = "dpo"
    kind: str = "red_team"
    language: str = UNKNOWN
    probability: float | None = None
    """The judge's probability that chosen is better."""


@dataclass(frozen=True, slots=True)
class PrincipleText:
    """What the measures need of a principle."""

    id: str
    title: str
    text: str


@dataclass(frozen=True)
class Data:
    """Everything one report is about."""

    name: str
    """Run or file, as shown."""
    prompts: list[Prompt]
    examples: list[Example]
    pairs: list[Pair]
    principles: list[PrincipleText] = field(default_factory=list)
    """Empty where the source names no constitution; coverage is then not measured."""
    demonstrations: list[str] = field(default_factory=list)
    """Texts of few-shot demonstrations that could have leaked into rows."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Rows dropped before, by reason."""
    datasheet: Mapping[str, Any] = field(default_factory=dict)
    """Models, licences, hashes, tokens, cost: shown as they are."""
    language: str = "en"
    """The constitution's language."""
    constitution: str = UNKNOWN
    """The constitution's name: which list of country markers the texts are held against."""
