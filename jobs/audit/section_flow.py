"""Sections 1 and 2: how many rows came how far, and which principles have any."""

from __future__ import annotations

from typing import Any

from jobs.audit.blocks import Block, Cell, Chart, Facts, Section, Table, View, count_of, figure, listed, reason_shown
from jobs.audit.chart_bars import Bar, Scale, bars
from jobs.audit.verdicts import first_sentence
from jobs.measure.constitution import is_negative

STAGES = {"prompts": "prompts", "sft": "SFT", "dpo": "DPO", "held_out": "held-out"}
SHOWN_PRINCIPLES = 150
"""Most principles in one table."""


def funnel(view: View) -> Section:
    """How many prompts and rows there are, and what was dropped on the way."""
    data = view.data
    dropped = sum(data.dropped.values())
    steps = _steps(view)
    blocks: list[Block] = [
        Chart(
            bars(
                "Rows at every step",
                "One bar for each step from prompts to training rows.",
                [Bar(name, count, f"{count:,}") for name, count in steps.items()],
                Scale(top=float(max(steps.values(), default=1))),
            ),
            "From prompts to rows, by split.",
        )
    ]
    if dropped:
        counted = sorted(data.dropped.items(), key=lambda one: -one[1])
        lines = [[Cell(reason_shown(reason)), figure(count), _share(count, dropped)] for reason, count in counted]
        blocks.append(Table("Dropped before this page, by reason", ["reason", "rows", "of the dropped"], lines[:40]))
    if facts := _costs(data.datasheet):
        blocks.append(Facts(facts, "What the rows cost"))
    verdict = first_sentence(
        view,
        ("splits",),
        f"{count_of(len(data.prompts), 'prompt')} led to {count_of(len(data.examples), 'supervised row')} and "
        f"{count_of(len(data.pairs), 'pair')}; {count_of(dropped, 'row')} {'was' if dropped == 1 else 'were'} dropped.",
    )
    if not data.examples and not data.pairs:
        verdict = "There is no row to train on."
    return Section("funnel", "From prompts to rows", verdict, view.light("splits"), blocks)


def _steps(view: View) -> dict[str, int]:
    data = view.data
    steps = {str(name): count for name, count in _counts(data.datasheet.get("funnel")).items()}
    steps["prompts"] = len(data.prompts)
    splits = {"sft": "sft", "dpo": "dpo", "held_out": "held-out"}
    steps |= {"supervised rows": len(data.examples), "pairs": len(data.pairs)}
    for split, name in splits.items():
        if split in {prompt.split for prompt in data.prompts}:
            steps[f"prompts in {name}"] = sum(prompt.split == split for prompt in data.prompts)
    return steps


def _counts(found: Any) -> dict[str, int]:
    return {name: count for name, count in found.items() if isinstance(count, int)} if isinstance(found, dict) else {}


def _costs(datasheet: Any) -> list[tuple[str, str]]:
    facts = [(f"{name.replace('_', ' ')}", f"{count:,}") for name, count in _counts(datasheet.get("tokens")).items()]
    cost = datasheet.get("cost_usd")
    return [*facts, ("cost", f"${cost:,.2f}")] if isinstance(cost, int | float) else facts


def _share(count: int, total: int) -> Cell:
    return Cell(f"{100 * count / total:.1f} %", "number")


def coverage(view: View) -> Section:
    """Rows by principle and split; an empty cell is marked in words too."""
    found = view.measured.coverage
    highest = max((count for counts in found.values() for count in counts.values()), default=0)
    stages = [stage for stage in STAGES if any(counts.get(stage) for counts in found.values())]
    lines = [
        [Cell(view.title(principle)), Cell(_framing(view, principle), "quiet")]
        + [_heat(counts.get(stage, 0), highest) for stage in stages]
        for principle, counts in found.items()
    ]
    without = [principle for principle, counts in found.items() if not counts.get("sft") and not counts.get("dpo")]
    named = listed([*map(view.title, without)])
    fine = f"Every one of {len(found)} principles has rows." if found else "The source names no principles."
    if not any(found):
        fine = "The source names no principles."
    elif without:
        fine = f"{count_of(len(without), 'principle')} of {len(found)} without a training row: {named}."
    more = (
        f"{len(lines) - SHOWN_PRINCIPLES} more principles are in measures.json."
        if len(lines) > SHOWN_PRINCIPLES
        else ""
    )
    table = Table(
        "Rows by principle and split; the stronger the colour the more, ∅ is none",
        ["principle", "framing", *(STAGES[stage] for stage in stages)],
        lines[:SHOWN_PRINCIPLES],
        more,
    )
    return Section("coverage", "Coverage", first_sentence(view, ("coverage",), fine), view.light("coverage"), [table])


def _heat(count: int, highest: int) -> Cell:
    if not count:
        return Cell("∅ 0", "number empty")
    return Cell(f"{count:,}", f"number heat-{min(9, int(9 * count / highest))}")


def _framing(view: View, principle_id: str) -> str:
    """Whether a principle says what to do or what to avoid: tuned models follow the two unlike (arXiv 2502.15861)."""
    text = next((one.text for one in view.data.principles if one.id == principle_id), "")
    if not text:
        return "-"
    return "says what to avoid" if is_negative(text, view.data.language) else "says what to do"
