"""Section 3: what tells chosen from rejected without the prompt."""

from __future__ import annotations

from markupsafe import Markup

from jobs.audit.blocks import (
    Block,
    Cell,
    Chart,
    Facts,
    Note,
    Section,
    Table,
    View,
    figure,
    interval,
    number,
    percent,
)
from jobs.audit.chart_bars import Bar, Scale, bars, histogram
from jobs.audit.chart_shapes import violins
from jobs.audit.section_flow import SHOWN_PRINCIPLES
from jobs.audit.verdicts import first_sentence
from jobs.measure.measured import Blind, Lengths, Share

SHORTCUTS = ("length_only", "refusal_only", "prompt_blind", "length_ratio")


def shortcuts(view: View) -> Section:
    """Lengths of both sides and every shortcut that gets the label right."""
    lengths = view.measured.lengths
    if lengths is None:
        return Section("shortcuts", "Length and shortcuts", "There are no pairs, so there is nothing to tell apart.")
    words = {
        "chosen": [len(pair.chosen.split()) for pair in view.data.pairs],
        "rejected": [len(pair.rejected.split()) for pair in view.data.pairs],
    }
    difference = [mine - other for mine, other in zip(words["chosen"], words["rejected"], strict=True)]
    blocks: list[Block] = [
        Chart(
            _panel(view, lengths),
            "Accuracy of rules that never read the prompt. Thick: the limit; dashes: chance; whisker: 95 % interval.",
        ),
        Chart(
            violins(
                "Words in chosen and rejected answers",
                f"Mean {lengths.chosen_words:.1f} against {lengths.rejected_words:.1f} words.",
                words,
                {"chosen": "chosen", "rejected": "rejected"},
            ),
            "Length of both sides: dot = median, thick line = middle half.",
        ),
        Chart(
            histogram(
                "Words chosen minus words rejected",
                f"Chosen is longer in {percent(lengths.longer_words)} of the pairs.",
                difference,
                ("rejected is longer", "chosen is longer"),
            ),
            "Difference in words inside each pair: good data is centred on 0.",
        ),
        *_tables(view, lengths),
    ]
    fine = "No rule that ignores the prompt tells chosen from rejected more often than the gates allow."
    verdict = first_sentence(view, SHORTCUTS, fine)
    return Section("shortcuts", "Length and shortcuts", verdict, view.light(*SHORTCUTS), blocks)


def _tables(view: View, lengths: Lengths) -> list[Block]:
    blocks: list[Block] = [Facts(_length_facts(lengths)), _ratios(view, lengths)]
    if view.measured.blind:
        blocks.append(_words(view, view.measured.blind))
    if view.transfers:
        blocks.append(_transfers(view))
    return blocks


def _panel(view: View, lengths: Lengths) -> Markup:
    blind, types = view.measured.blind, view.measured.types
    rule = "longer" if lengths.longer_is_chosen else "shorter"
    found: list[tuple[str, Share | None, str]] = [
        (f"the {rule} one is chosen", lengths.length_only, "length_only"),
        ("refusal phrases", types.refusal_only, "refusal_only"),
        ("words, folds by prompt", blind.by_prompt if blind else None, "prompt_blind"),
        ("words, folds by principle", blind.by_principle if blind else None, "prompt_blind"),
    ]
    rows = [(name, share, view.gate(gate)) for name, share, gate in found if share is not None and share.total]
    drawn = [
        Bar(
            name,
            share.value,
            percent(share),
            f"light-{gate.light}" if gate and gate.light != "grey" else "series-1",
            share.low,
            share.high,
        )
        for name, share, gate in rows
    ]
    limits = tuple(gate.limit if gate else None for _, _, gate in rows)
    return bars("Shortcut accuracy", "Share of pairs each rule gets right.", drawn, Scale(chance=0.5, limits=limits))


def _length_facts(lengths: Lengths) -> list[tuple[str, str]]:
    facts = [
        ("mean words, chosen", number(lengths.chosen_words)),
        ("mean words, rejected", number(lengths.rejected_words)),
        ("ratio of the means", number(lengths.ratio, 2)),
        ("chosen longer in words", f"{percent(lengths.longer_words)}: {interval(lengths.longer_words)}"),
        ("length alone, in characters", f"{percent(lengths.length_only)}: {interval(lengths.length_only)}"),
        ("pairs within ±10 %", f"{lengths.within_tenth:,}"),
    ]
    if lengths.wilcoxon_p is not None:
        facts.append(("signed-rank test, p", f"{lengths.wilcoxon_p:.2g}"))
    if lengths.initial_words is not None and lengths.completion_words is not None:
        facts.append(("mean words, initial response", number(lengths.initial_words)))
        facts.append(("mean words, revision", number(lengths.completion_words)))
    if lengths.completion_longer is not None:
        facts.append(("revision longer than initial", percent(lengths.completion_longer)))
    return facts


def _ratios(view: View, lengths: Lengths) -> Table:
    ordered = sorted(lengths.by_principle.items(), key=lambda one: -one[1])
    rows = [[Cell(view.title(name)), figure(float(ratio), 2)] for name, ratio in ordered[:SHOWN_PRINCIPLES]]
    return Table("Mean words chosen ÷ rejected, by principle", ["principle", "ratio"], rows)


def _words(view: View, blind: Blind) -> Table | Note:
    gate = view.gate("prompt_blind")
    if gate is None or gate.light not in {"amber", "red"}:
        return Note("No word gives chosen away: a classifier that never sees the prompt stays within the limit.")
    count = max(len(blind.for_chosen), len(blind.for_rejected))
    rows = []
    for place in range(min(count, 15)):
        row: list[Cell] = []
        for side in (blind.for_chosen, blind.for_rejected):
            word, weight = side[place] if place < len(side) else ("", None)
            row += [Cell(word), figure(weight, 2)]
        rows.append(row)
    return Table(
        "Words by which a classifier that never sees the prompt tells the sides apart",
        ["speaks for chosen", "weight", "speaks for rejected", "weight"],
        rows,
    )


def _transfers(view: View) -> Table:
    rows = [
        [Cell(one.learned_from), Cell(one.tried_on), Cell(percent(one.accuracy), "number"), figure(one.pairs)]
        for one in view.transfers
    ]
    return Table(
        "A classifier of one source's answers, tried on another: over 50 % is a style that both share",
        ["learned from", "tried on", "right", "pairs"],
        rows,
    )
