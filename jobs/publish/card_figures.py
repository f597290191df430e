"""The card's numbers, from the data report's measures.json and the judge's verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Figures = Mapping[str, Any]
COUNTED = {"leaks", "duplicates", "splits"}
"""Gates whose value is a number of rows."""
LEAST = {"coverage"}
"""Gates whose limit is the least allowed, not the most."""
SHOWN_OPENING = 60
"""Characters of an opening that are shown."""


def gate_lines(figures: Figures | None) -> Iterator[str]:
    """The table of gates."""
    if figures is None:
        return
    yield from ("## Quality gates", "", "| gate | | value | limit | what it says |", "|---|---|---|---|---|")
    for gate in figures["gates"]:
        name, value = gate["name"], gate["value"]
        shown = "not measured" if value is None else _amount(name, value)
        limit = f"{'at least' if name in LEAST else 'at most'} {_amount(name, gate['limit'])}"
        yield f"| {name.replace('_', ' ')} | {gate['light']} | {shown} | {limit} | {cell(gate['says'])} |"
    yield ""


def measure_lines(figures: Figures | None, measures: Figures) -> Iterator[str]:
    """What the two sides give away, lengths, coverage and the judge; shares with their Wilson 95 % intervals."""
    lines = [*_measured(figures["measured"] if figures else {}), *_verdicts(measures.get("verdicts") or {})]
    if lines:
        yield from ("## Measured", "", "| | |", "|---|---|", *lines, "")


def _measured(measured: Figures) -> Iterator[str]:
    types = measured.get("types") or {}
    yield from _shortcuts(measured.get("lengths"), types.get("refusal_only"), measured.get("blind"))
    for field, refusals in sorted((types.get("refusals") or {}).items()):
        yield f"| refusals among {field} | {share(refusals)} |"
    if twins := types.get("declined_twins"):
        yield f"| benign twins whose chosen answer refuses | {share(twins)} |"
    if openings := measured.get("openings"):
        opening = cell(openings["largest"][:SHOWN_OPENING])
        yield f"| most frequent opening | {100 * openings['largest_share']:.1f} % ({opening}) |"
    if coverage := measured.get("coverage"):
        trained = sum(bool(rows.get("sft", 0) + rows.get("dpo", 0)) for rows in coverage.values())
        yield f"| principles with training rows | {trained} of {len(coverage)} |"
    if identified := measured.get("identified"):
        yield f"| prompts nearest to their own principle | {share(identified['top_1'])} |"


def _shortcuts(lengths: Figures | None, refusal: Figures | None, blind: Figures | None) -> Iterator[str]:
    if lengths:
        rule = "longer" if lengths["longer_is_chosen"] else "shorter"
        yield f'| pairs that "{rule} is chosen" gets right | {share(lengths["length_only"])} |'
        words = f"{lengths['chosen_words']:.0f} and {lengths['rejected_words']:.0f}"
        yield f"| mean words of chosen and rejected | {words} (ratio {lengths['ratio']:.2f}) |"
    if refusal:
        yield f"| pairs that a list of refusal phrases gets right | {share(refusal)} |"
    if blind:
        yield f"| pairs that a classifier gets right without seeing the prompt | {share(blind['by_prompt'])} |"
        if blind["by_principle"]:
            yield f"| the same, on principles it was not fitted on | {share(blind['by_principle'])} |"


def _verdicts(verdicts: Mapping[str, int]) -> Iterator[str]:
    read = sum(count for verdict, count in verdicts.items() if verdict != "unreadable")
    if read:
        agreed = read - verdicts.get("flipped", 0)
        told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
        yield f"| judge: both orders agree | {100 * agreed / read:.1f} % of {read} ({told}) |"


def share(found: Figures) -> str:
    """A share with its interval: `61.3 % of 669 (57.0 to 65.4)`."""
    if not found["total"]:
        return "none to count"
    value, low, high = (100 * part for part in (found["count"] / found["total"], found["low"], found["high"]))
    return f"{value:.1f} % of {found['total']:,} ({low:.1f} to {high:.1f})"


def _amount(gate: str, value: float) -> str:
    if gate in COUNTED:
        return f"{value:.0f}"
    return f"{value:.2f}" if gate == "length_ratio" else f"{100 * value:.1f} %"


def cell(text: str) -> str:
    """One table cell: no line end, no bar, no HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
