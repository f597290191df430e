"""What the measures say about the rows under repair: which gates are above their target, and by which rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jobs.common.settings import AuditSettings
from jobs.generate.repair_rows import Row, Rows
from jobs.measure.data import Data
from jobs.measure.measured import Gate, Measured
from jobs.measure.near import plain
from jobs.measure.texts import opening, refuses

Ask = Literal["rewrite", "edit"]
"""`rewrite`: the answer, near a length. `edit`: the rejected side, by minimal edit of the chosen one."""


@dataclass(frozen=True)
class Found:
    """One look at the rows."""

    data: Data
    measured: Measured
    gates: dict[str, Gate]
    """By name, against the targets."""
    examples: list[str]
    """The row of each of the data's examples, by its id in memory."""
    pairs: list[str]
    """The row of each of its pairs."""

    @property
    def failing(self) -> set[str]:
        """Gates above their target; those of statistics only where enough rows are behind them."""
        return {name for name, gate in self.gates.items() if gate.light in _lights(name)}


def targets(settings: AuditSettings) -> AuditSettings:
    """What repair aims at: stricter than the gates that stop a run, never looser."""
    aims = {"length_only": 0.60, "refusal_only": 0.60, "prompt_blind": 0.65, "opening": 0.05}
    return settings.model_copy(update={name: min(aim, getattr(settings, name)) for name, aim in aims.items()})


def _lights(name: str) -> tuple[str, ...]:
    """A duplicate among ten rows is one too; a share of ten rows says little."""
    return ("red", "amber") if name in {"malformed", "duplicates", "leaks", "splits"} else ("red",)


def repeats_request(row: Row) -> bool:
    """Does the answer begin with the critique, or with what the teacher was asked?"""
    chain, answer = row.revision, plain(row.answer)
    if chain is None:
        return False
    return any(answer.startswith(plain(text)) for text in (chain.critique, chain.revision_request) if text.strip())


def one_sided_refusals(rows: Rows) -> tuple[list[Row], Ask]:
    """Pairs of which one side alone refuses, the chosen or the rejected one, whichever are more, and what mends it."""
    chosen = [row for row in rows.pairs if refuses(row.answer) and not refuses(row.other)]
    rejected = [row for row in rows.pairs if refuses(row.other) and not refuses(row.answer)]
    return (chosen, "rewrite") if len(chosen) >= len(rejected) else (rejected, "edit")


@dataclass(frozen=True)
class Field:
    """Texts of one kind: completions, chosen or rejected sides."""

    ask: Ask
    """What mends them."""
    texts: dict[str, str]
    """By row."""

    def by_opening(self) -> dict[str, list[str]]:
        """Rows by their text's first words."""
        found: dict[str, list[str]] = {}
        for row_id, text in self.texts.items():
            found.setdefault(opening(text), []).append(row_id)
        return found


def fields(rows: Rows) -> list[Field]:
    """All texts whose openings are measured."""
    return [
        Field("rewrite", {row.id: row.example.completion for row in rows.rows.values() if row.example}),
        Field("rewrite", {row.id: row.answer for row in rows.pairs}),
        Field("edit", {row.id: row.other for row in rows.pairs}),
    ]


def told_by_length(pairs: list[Row], found: Found) -> list[Row]:
    """Pairs that their length alone gets right, largest difference first."""
    lengths = found.measured.lengths
    assert lengths
    sign = 1 if lengths.longer_is_chosen else -1
    told = [row for row in pairs if sign * (len(row.answer) - len(row.other)) > 0]
    return sorted(told, key=lambda row: -abs(len(row.answer) - len(row.other)))


def told_by_classifier(found: Found) -> list[str]:
    """Pairs that a classifier without the prompt gets right, surest first, by row."""
    blind = found.measured.blind
    assert blind
    told = sorted((index for index, margin in blind.margins.items() if margin > 0), key=lambda at: -blind.margins[at])
    return [found.pairs[index] for index in told]
