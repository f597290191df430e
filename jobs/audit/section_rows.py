"""Sections 7 and 8: rows with something in them that does not belong, and what the answers do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from jobs.audit.blocks import (
    Block,
    Cell,
    Chart,
    Facts,
    Note,
    Section,
    Table,
    View,
    clip,
    count_of,
    figure,
    interval,
    percent,
)
from jobs.audit.chart_bars import stacked
from jobs.audit.verdicts import first_sentence
from jobs.measure.data import Example, Pair, Prompt

SHOWN_MALFORMED = 200
REASONS = {
    "prompt_drift": "the prompt differs from its source",
    "template": "words of a template in the text",
    "role_confusion": "the answer speaks as the user",
    "meta_talk": "the answer talks about revising",
    "truncated": "the answer breaks off",
    "zero_width": "invisible characters",
    "language": "another language than asked for",
    "empty": "an empty field",
    "echo": "the answer repeats the prompt",
    "demonstration": "words of a demonstration",
    "same_sides": "both sides are the same",
}
FIELDS = {"answer": "the file's own answer", "completion": "supervised answers"}
"""Field → the name it is shown under; others are shown as they are."""
TYPES = ("complies", "partial", "redirects", "refuses", "empty")


def malformed(view: View) -> Section:
    """Every kind of fault with its rows."""
    found, data = view.measured.malformed, view.data
    total = len(data.prompts) + len(data.examples) + len(data.pairs)
    blocks: list[Block] = []
    if found:
        counted = Counter(one.reason for one in found).most_common()
        blocks.append(
            Table(
                "Faults by kind",
                ["kind", "what it means", "rows"],
                [[Cell(kind.replace("_", " ")), Cell(REASONS.get(kind, "")), figure(count)] for kind, count in counted],
            )
        )
        rows = [
            [
                Cell(f"{one.part} {one.row + 1}", "quiet", row=f"{one.part}-{one.row}"),
                Cell(_id(view, one.part, one.row), "quiet"),
                Cell(one.reason.replace("_", " ")),
                Cell(clip(one.detail, 200)),
            ]
            for one in found[:SHOWN_MALFORMED]
        ]
        left = len(found) - len(rows)
        more = f"{left:,} more are in measures.json." if left else ""
        blocks.append(Table("Rows", ["row", "id", "kind", "what was seen"], rows, more))
    rows_hit = len({(one.part, one.row) for one in found})
    fine = f"None of {total:,} rows has anything in it that does not belong."
    if found:
        fine = f"{count_of(rows_hit, 'row')} of {total:,} with something that does not belong."
    return Section(
        "malformed", "Malformed rows", first_sentence(view, ("malformed",), fine), view.light("malformed"), blocks
    )


def _id(view: View, part: str, row: int) -> str:
    rows: Sequence[Prompt | Example | Pair] = view.data.prompts
    if part != "prompts":
        rows = view.data.pairs if part == "pairs" else view.data.examples
    return rows[row].id if row < len(rows) else ""


def answers(view: View) -> Section:
    """What answers do, by field, and whether legitimate requests are declined."""
    types = view.measured.types
    mix = {FIELDS.get(field, field): counts for field, counts in types.by_field.items() if sum(counts.values())}
    blocks: list[Block] = []
    if mix:
        chart = stacked("Response types", "Shares of five kinds of answers, by field.", mix, TYPES)
        blocks.append(Chart(chart, "What answers do, by field."))
        rows = [[Cell(field), *(figure(counts.get(name, 0)) for name in TYPES)] for field, counts in mix.items()]
        blocks.append(Table("The same in numbers", ["field", *TYPES], rows))
    facts = [
        (f"opens with a refusal, {FIELDS.get(field, field)}", f"{percent(share)}: {interval(share)}")
        for field, share in types.refusals.items()
        if share.total
    ]
    twins = types.declined_twins
    facts.append(("benign twins whose answer refuses", f"{percent(twins)}: {interval(twins)}" if twins else "no twins"))
    blocks.append(Facts(facts))
    blocks.append(
        Note(
            "An answer that opens with a refusal and then offers something counts as “redirects” in the chart, not as "
            "“refuses”; “opens with a refusal” counts both."
        )
    )
    return Section("answers", "What answers do", _answers_verdict(view), view.light("refusal_only"), blocks)


def _answers_verdict(view: View) -> str:
    twins, refusals = view.measured.types.declined_twins, view.measured.types.refusals
    if twins is not None and twins.count:
        return (
            f"The data teaches over-refusal: {percent(twins)} of {twins.total:,} legitimate requests (benign twins) "
            "are declined."
        )
    shares = [
        f"{percent(refusals[field])} of {name} answers"
        for field, name in (("chosen", "chosen"), ("completion", "supervised"))
        if field in refusals and refusals[field].total
    ]
    said = f"Refusal phrases stand in {' and '.join(shares)}" if shares else "There are no answers to look at"
    if twins is None:
        return f"{said}; without benign twins nobody can tell whether legitimate requests are declined."
    return f"{said}; no benign twin is declined."
