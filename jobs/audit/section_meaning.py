"""Sections 9 and 10: does a prompt tell its principle, and do answers name anything of the country?"""

from __future__ import annotations

from jobs.audit.blocks import (
    Block,
    Cell,
    Chart,
    Facts,
    Section,
    Table,
    View,
    count_of,
    figure,
    interval,
    listed,
    percent,
)
from jobs.audit.chart_bars import Bar, Scale, bars
from jobs.audit.chart_shapes import matrix

MOST = 40
"""Most principles in one chart."""
ALIKE = 0.5
"""Cosine from which two principles are named as alike."""


def identified(view: View) -> Section:
    """The confusion of principles."""
    found = view.measured.identified
    if found is None:
        verdict = "The source names no constitution, so no prompt can be held against a principle."
        return Section("identified", "Principles told by their prompts", verdict)
    names = sorted(found.confusion, key=lambda name: -sum(found.confusion[name].values()))[:MOST]
    chance = 1 / max(len(view.data.principles), 1)
    blocks: list[Block] = [
        Facts(
            [
                ("nearest principle is the right one", f"{percent(found.top_1)}: {interval(found.top_1)}"),
                ("right one among the nearest three", f"{percent(found.top_3)}: {interval(found.top_3)}"),
                ("chance", percent(chance)),
            ]
        ),
        Chart(
            matrix(
                "Principle a prompt was written for, against the nearest one",
                f"The diagonal holds {percent(found.top_1)} of the prompts.",
                names,
                found.confusion,
            ),
            "Rows: the principle a prompt was written for. Columns: the nearest by words. The diagonal is right.",
        ),
    ]
    if found.alike:
        rows = [
            [Cell(view.title(one)), Cell(view.title(other)), figure(float(score), 2)]
            for one, other, score in found.alike[:20]
        ]
        blocks.append(Table("Principles whose own texts are alike", ["principle", "principle", "cosine"], rows))
    never = [name for name in names if not found.confusion[name].get(name)]
    verdict = f"{percent(found.top_1)} of the prompts are nearest to their own principle (chance {percent(chance)})"
    if never:
        verdict += f"; those of {count_of(len(never), 'principle')} never are ({listed([*map(view.title, never)], 3)})"
    close = sum(score >= ALIKE for _, _, score in found.alike)
    verdict += f"; {count_of(close, 'pair')} of principles with nearly the same text." if close else "."
    return Section("identified", "Principles told by their prompts", verdict, "grey", blocks)


def grounding(view: View) -> Section:
    """Country markers by principle."""
    found = view.measured.grounding
    if found is None:
        verdict = "No list of names is known for this constitution's country, so grounding was not measured."
        return Section("grounding", "Cultural grounding", verdict)
    ordered = sorted(found.by_principle.items(), key=lambda one: one[1].value)
    rows = [
        Bar(view.title(name), share.value, f"{share.count} of {share.total}", "series-1", share.low, share.high)
        for name, share in ordered[:MOST]
    ]
    blocks: list[Block] = [
        Facts(
            [
                ("prompts that name something of the country", f"{percent(found.prompts)}: {interval(found.prompts)}"),
                ("chosen answers that do", f"{percent(found.chosen)}: {interval(found.chosen)}"),
            ]
        ),
    ]
    if rows:
        chart = bars("Chosen answers with a country marker", "By principle, least first.", rows, Scale())
        blocks.append(Chart(chart, "Share of chosen answers that name something of the country, by principle."))
    without = found.principles_without
    verdict = "Every principle has a chosen answer that names something of the country."
    if without:
        verdict = (
            f"{len(without)} of {len(found.by_principle)} principles have no chosen answer that names anything of the "
            f"country: {listed([*map(view.title, without)])}."
        )
    return Section("grounding", "Cultural grounding", verdict, "grey", blocks)
