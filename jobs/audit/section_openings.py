"""Section 4: how prompts and answers open, and the demonstration an opening may come from."""

from __future__ import annotations

import re

from jobs.audit.blocks import Block, Cell, Facts, Note, Section, Table, View, figure, percent
from jobs.audit.verdicts import first_sentence

FIELDS = {"prompt": "prompts", "chosen": "chosen", "rejected": "rejected", "completion": "supervised answers"}
SHOWN = 6
"""Openings of each field."""


def openings(view: View) -> Section:
    """The most frequent first five words of every field, traced to a demonstration where there are any."""
    found = view.measured.openings
    head = ["field", "opening", "rows", "share", "stands in"]
    rows = [_line(view, field, opening, count) for field, top in found.top.items() for opening, count in top[:SHOWN]]
    if not any(line[-1].text for line in rows):
        head, rows = head[:-1], [line[:-1] for line in rows]
    bits = [
        (f"entropy, {FIELDS.get(field, field)}", f"{value:.2f} bits") for field, value in found.entropy_bits.items()
    ]
    blocks: list[Block] = [
        Table("Most frequent first five words", head, rows),
        Facts(bits, "How varied the openings are: log₂ of the number of equally frequent ones"),
    ]
    if not view.data.demonstrations:
        blocks.append(Note("The source shows no demonstrations, so no opening can be traced to one."))
    where = FIELDS.get(found.largest_field, found.largest_field)
    fine = "There are no answers to look at."
    if found.largest:
        fine = f"The most frequent opening, “{found.largest}”, stands in {percent(found.largest_share)} of {where}."
    return Section("openings", "Openings", first_sentence(view, ("opening",), fine), view.light("opening"), blocks)


def _line(view: View, field: str, opening: str, count: int) -> list[Cell]:
    data = view.data
    total = {"prompt": len(data.prompts), "completion": len(data.examples)}.get(field, len(data.pairs))
    return [
        Cell(FIELDS.get(field, field), "quiet"),
        Cell(opening),
        figure(count),
        Cell(percent(count / total if total else None), "number"),
        Cell(trace(opening, data.demonstrations)),
    ]


def trace(opening: str, demonstrations: list[str]) -> str:
    """The demonstration that has the opening's words in this order, or nothing."""
    wanted = _plain(opening)
    for place, text in enumerate(demonstrations, start=1):
        if wanted and f" {wanted} " in f" {_plain(text)} ":
            return f"demonstration {place}: “{text[:80]}{'…' if len(text) > 80 else ''}”"
    return ""


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
