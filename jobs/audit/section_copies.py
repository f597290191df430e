"""Sections 5 and 6: prompts that say the same, and prompts that two splits share."""

from __future__ import annotations

from jobs.audit.blocks import (
    Beside,
    Block,
    Cell,
    Facts,
    Section,
    Table,
    View,
    clip,
    count_of,
    figure,
)
from jobs.audit.section_flow import SHOWN_PRINCIPLES
from jobs.audit.verdicts import first_sentence

SHOWN_COUPLES = 40
SHOWN_LEAKS = 100
METHODS = {"exact": "word for word", "minhash": "MinHash, 5 characters", "tfidf": "TF-IDF cosine"}
WAYS = {"exact": "word for word", "contained": "one holds the other", "near": "nearly the same"}
PARTS = {"sft": "SFT", "dpo": "DPO", "held_out": "held-out"}


def duplicates(view: View) -> Section:
    """Near-duplicate prompts beside each other, and how many different prompts there really are."""
    measured, prompts = view.measured, view.data.prompts
    ordered = sorted(measured.near, key=lambda one: -one.score)
    couples = []
    for near in ordered[:SHOWN_COUPLES]:
        first, second = prompts[near.first], prompts[near.second]
        across = "" if first.principle_id == second.principle_id else " · across principles"
        splits = "" if first.split == second.split else " · across splits"
        couples.append(
            (
                f"{METHODS[near.method]}, {near.score:.2f}{across}{splits}",
                (f"{first.id} · {view.title(first.principle_id)}", clip(first.text, 600)),
                (f"{second.id} · {view.title(second.principle_id)}", clip(second.text, 600)),
            )
        )
    blocks: list[Block] = [Facts(_facts(view))]
    if couples:
        left = len(ordered) - len(couples)
        more = f"{left:,} more are in measures.json." if left else ""
        blocks.append(Beside("Prompts that say the same, most alike first", couples, more))
    if variety := _variety(view):
        blocks.append(variety)
    fine = "No two prompts say the same."
    if ordered:
        fine = f"{count_of(len(ordered), 'pair')} of prompts nearly say the same."
    return Section(
        "duplicates", "Duplicates", first_sentence(view, ("duplicates",), fine), view.light("duplicates"), blocks
    )


def _facts(view: View) -> list[tuple[str, str]]:
    near, prompts = view.measured.near, view.data.prompts
    across = sum(prompts[one.first].principle_id != prompts[one.second].principle_id for one in near)
    counts = [(f"pairs, {shown}", f"{sum(one.method == name for one in near):,}") for name, shown in METHODS.items()]
    return [
        *counts,
        ("of them across principles", f"{across:,}"),
        ("clusters", f"{len(set(view.measured.clusters)):,} of {len(prompts):,} prompts"),
        ("effective number of prompts by words (Vendi)", f"{view.measured.diversity.vendi:.1f} of {len(prompts):,}"),
    ]


def _variety(view: View) -> Table | None:
    diversity = view.measured.diversity
    if not diversity.vendi_by_principle:
        return None
    ordered = sorted(diversity.vendi_by_principle.items(), key=lambda one: one[1])[:SHOWN_PRINCIPLES]
    rows = [
        [
            Cell(view.title(name)),
            figure(view.measured.coverage.get(name, {}).get("prompts")),
            figure(float(vendi)),
            figure(diversity.distinct_2.get(name), 2),
        ]
        for name, vendi in ordered
    ]
    head = ["principle", "prompts", "effective prompts by words", "distinct bigrams"]
    return Table("Variety of prompts by principle, least first", head, rows)


def leaks(view: View) -> Section:
    """Which parts share prompts, and the prompts themselves."""
    measured = view.measured
    parts = sorted({part for couple in measured.leak_matrix for part in couple})
    blocks: list[Block] = []
    if parts:
        rows = [[Cell(PARTS.get(one, one)), *(_shared(view, one, other) for other in parts)] for one in parts]
        head = ["prompts shared by", *(PARTS.get(part, part) for part in parts)]
        blocks.append(Table("Leak matrix: prompts that two parts share, exactly or nearly", head, rows))
    blocks.append(Facts([("texts chosen in one pair and rejected in another", f"{measured.reused:,}")]))
    if measured.leaks:
        lines = [
            [
                Cell(" ∩ ".join(PARTS.get(split, split) for split in (leak.first_split, leak.second_split))),
                Cell(WAYS[leak.method]),
                Cell(clip(leak.prompt, 240)),
                Cell(f"{leak.first} · {leak.second}", "quiet"),
            ]
            for leak in measured.leaks[:SHOWN_LEAKS]
        ]
        left = len(measured.leaks) - len(lines)
        more = f"{left:,} more are in measures.json." if left else ""
        blocks.append(Table("Shared prompts", ["splits", "how", "prompt", "rows"], lines, more))
    fine = "No prompt stands in two splits."
    if measured.leaks:
        fine = f"{count_of(len(measured.leaks), 'prompt')} in more than one split."
    return Section("leaks", "Leaks between splits", first_sentence(view, ("leaks",), fine), view.light("leaks"), blocks)


def _shared(view: View, one: str, other: str) -> Cell:
    if one == other:
        return Cell("-", "number quiet")
    matrix = view.measured.leak_matrix
    count = matrix.get((one, other), matrix.get((other, one), 0))
    return Cell(f"{count:,}", "number empty" if count else "number")
