"""The gates' cards: each with its interval, and a fix that several share said once."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.audit.blocks import View
from jobs.audit.lights import limit_shown, value_shown
from jobs.measure.measured import Gate, Share
from jobs.measure.shares import share

SAME = 0.001
"""How far a gate's value may be from a share that is shown as its own."""


@dataclass(frozen=True)
class Card:
    """One gate as the page shows it."""

    gate: Gate
    value: str
    interval: str
    """95 % interval in per cent, `(49\N{EN DASH}67)`; empty where no share is behind the value."""
    limit: str
    fix: str
    """Empty where the fix stands above the cards."""


def cards(view: View) -> list[Card]:
    """All gates, in their order."""
    common = {fix for fix, _ in shared_fixes(view)}
    return [
        Card(gate, value_shown(gate), _interval(view, gate), limit_shown(gate), "" if gate.fix in common else gate.fix)
        for gate in view.gates
    ]


def shared_fixes(view: View) -> list[tuple[str, str]]:
    """Fixes that more than one gate names, each with the gates' names."""
    names: dict[str, list[str]] = {}
    for gate in view.gates:
        if gate.fix:
            names.setdefault(gate.fix, []).append(gate.name.replace("_", " "))
    return [(fix, ", ".join(found)) for fix, found in names.items() if len(found) > 1]


def _interval(view: View, gate: Gate) -> str:
    behind = _share(view, gate.name)
    if behind is None or gate.value is None or abs(behind.value - gate.value) > SAME:
        return ""
    return f"({100 * behind.low:.0f}\N{EN DASH}{100 * behind.high:.0f})"


def _share(view: View, name: str) -> Share | None:
    """The share with its interval that a gate's value is."""
    measured, data = view.measured, view.data
    if name == "length_only":
        return measured.lengths.length_only if measured.lengths else None
    if name == "refusal_only":
        return measured.types.refusal_only if measured.types.refusal_only.total else None
    if name == "prompt_blind" and measured.blind:
        both = [measured.blind.by_prompt, *filter(None, [measured.blind.by_principle])]
        return max(both, key=lambda one: one.value)
    if name == "opening" and measured.openings.largest_field:
        rows = len(data.examples) if measured.openings.largest_field == "completion" else len(data.pairs)
        return share(round(measured.openings.largest_share * rows), rows)
    return None
