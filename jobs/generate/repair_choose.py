"""Which rows break which gate, and what is asked about them: as few as bring the gate to its target."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from jobs.generate.repair_found import (
    Ask,
    Found,
    fields,
    one_sided_refusals,
    repeats_request,
    told_by_classifier,
    told_by_length,
)
from jobs.generate.repair_rows import Row, Rows
from jobs.measure.measured import Gate
from jobs.measure.texts import opening, refuses

SPARE = 0.03
"""What a share is brought below its target, because not every rewrite helps."""
BLIND_LEFT = 0.5
"""Pairs that a classifier without the prompt still gets right after a minimal edit: it can only guess."""


@dataclass(frozen=True)
class Task:
    """One row to ask about."""

    row_id: str
    gate: str
    ask: Ask
    avoid_opening: str = ""
    """Words the rewritten answer must not begin with."""


Choose = Callable[[Rows, Found, Collection[str]], Iterator[Task]]
"""Gives the rows to ask about for one gate; the last argument are rows that another gate has claimed."""


def choose(rows: Rows, found: Found, *, is_last: bool) -> list[Task]:
    """The rows to ask about in this round, each for the first gate it breaks.

    Args:
        rows: what the measures were taken of.
        found: the measures.
        is_last: no round follows. A classifier finds what other gates name better, so its rows wait until those hold.
    """
    failing = found.failing
    tasks: dict[str, Task] = {}
    work: dict[str, Choose] = {
        "malformed": _malformed,
        "refusal_only": _refusals,
        "opening": _openings,
        "length_only": _lengths,
    }
    for name, tasks_of in work.items():
        if name in failing or (name == "length_only" and "length_ratio" in failing):
            for task in tasks_of(rows, found, tasks.keys()):
                tasks.setdefault(task.row_id, task)
    if "prompt_blind" in failing and (is_last or not tasks):
        for task in _blind(rows, found, tasks.keys()):
            tasks.setdefault(task.row_id, task)
    return list(tasks.values())


def is_sound(task: Task, text: str) -> bool:
    """Is a new text, of either side, free of the fault for which it was asked?"""
    if task.avoid_opening and opening(text) == task.avoid_opening:
        return False
    return task.gate != "refusal_only" or not refuses(text)


def _malformed(rows: Rows, found: Found, taken: Collection[str]) -> Iterator[Task]:
    for fault in found.measured.malformed:
        if fault.part == "prompts":
            continue  # a prompt cannot be asked for again: it is frozen
        part = found.examples if fault.part == "examples" else found.pairs
        row = rows.rows.get(part[fault.row])
        if row and row.id not in taken:
            is_rejected = fault.reason == "same_sides" or fault.detail.startswith("rejected")
            yield Task(row.id, "malformed", "edit" if is_rejected else "rewrite")
    for row in rows.rows.values():
        if row.id not in taken and repeats_request(row):
            yield Task(row.id, "malformed", "rewrite")


def _refusals(rows: Rows, found: Found, taken: Collection[str]) -> Iterator[Task]:
    worse, ask = one_sided_refusals(rows)
    # A pair in which neither side refuses counts half.
    for row in worse[: _needed(found.gates["refusal_only"], len(rows.pairs), 0.5)]:
        if row.id not in taken:
            yield Task(row.id, "refusal_only", ask, opening(row.answer) if ask == "rewrite" else "")


def _openings(rows: Rows, found: Found, taken: Collection[str]) -> Iterator[Task]:
    limit = found.gates["opening"].limit
    for field in fields(rows):
        total = len(field.texts)
        for words, same in field.by_opening().items():
            for row_id in same[int((limit - SPARE) * total) :] if len(same) > limit * total else ():
                if row_id not in taken:
                    yield Task(row_id, "opening", field.ask, words if field.ask == "rewrite" else "")


def _lengths(rows: Rows, found: Found, taken: Collection[str]) -> Iterator[Task]:
    told = told_by_length([row for row in rows.pairs if row.id not in taken], found)
    # Half of what is rewritten ends up on the same side again.
    needed = max(_needed(found.gates["length_only"], len(rows.pairs), 0.5), _for_ratio(told, rows.pairs, found))
    for row in told[:needed]:
        yield Task(row.id, "length_only", "rewrite")


def _for_ratio(told: list[Row], pairs: list[Row], found: Found) -> int:
    """Rows, largest difference first, that must become equal before the mean lengths are within the ratio."""
    limit = 1 + (found.gates["length_ratio"].limit - 1) * (1 - SPARE)
    chosen = sum(len(row.answer.split()) for row in pairs)
    rejected = sum(len(row.other.split()) for row in pairs)
    for needed, row in enumerate(told):
        if chosen <= limit * rejected and rejected <= limit * chosen:
            return needed
        chosen += len(row.other.split()) - len(row.answer.split())
    return len(told)


def _blind(rows: Rows, found: Found, taken: Collection[str]) -> Iterator[Task]:
    told = [row_id for row_id in told_by_classifier(found) if row_id in rows.rows]
    for row_id in told[: _needed(found.gates["prompt_blind"], len(rows.pairs), 1 - BLIND_LEFT)]:
        if row_id not in taken:
            yield Task(row_id, "prompt_blind", "edit")


def _needed(gate: Gate, count: int, gain: float) -> int:
    """Rows to change so that a share of `count` rows reaches its target, where each changes it by `gain` rows."""
    over = (gate.value or 0.0) - gate.limit
    return math.ceil((over + SPARE) * count / gain) if over > 0 else 0
