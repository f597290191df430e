"""Datasets and measures made by hand, so that the page is tested apart from what measures find."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jobs.audit.blocks import View
from jobs.measure.data import Data, Example, Pair, PrincipleText, Prompt
from jobs.measure.findings import Leak, Malformed, Near
from jobs.measure.measured import (
    Blind,
    Diversity,
    Gate,
    Grounding,
    Identified,
    Lengths,
    Measured,
    Openings,
    Share,
    Types,
)

PRINCIPLES = ("ubuntu", "honesty", "thrift")


def share(count: int, total: int) -> Share:
    middle = count / total if total else 0.0
    return Share(count, total, max(0.0, middle - 0.05), min(1.0, middle + 0.05))


def made_data(rows: int = 24, **changes: Any) -> Data:
    """`rows` prompts; the first half is supervised, the second half in pairs."""
    splits = ["sft" if number < rows // 2 else "dpo" for number in range(rows)]
    prompts = [
        Prompt(f"prompt-{number}", PRINCIPLES[number % 3], f"Question {number} about taxes in town {number}?", split)
        for number, split in enumerate(splits)
    ]
    examples = [
        Example(one.id, one.principle_id, one.text, f"Let us look at question {one.id} together.", initial="No.")
        for one in prompts
        if one.split == "sft"
    ]
    pairs = [
        Pair(
            one.id,
            one.principle_id,
            one.text,
            f"A careful answer to {one.id} that takes its time and names Soweto.",
            f"Just do it, {one.id}.",
        )
        for one in prompts
        if one.split == "dpo"
    ]
    principles = [PrincipleText(name, name.title(), f"The answer shows {name}.") for name in PRINCIPLES]
    principles[2] = PrincipleText("thrift", "Thrift", "The answer does not waste anything.")
    data = Data("made", prompts, examples, pairs, principles, ["A careful answer to begin with, as shown."])
    return replace(data, **changes)


def made_measured(data: Data, **changes: Any) -> Measured:
    """Figures of every kind, so that every section shows all it can."""
    pairs = len(data.pairs)
    half = share(pairs // 2, pairs)
    blind = Blind(share(pairs, pairs), half, [("instead", 2.5), ("careful", 1.1)], [("just", -2.2)], {0: 1.5})
    measured = Measured(
        malformed=[
            Malformed("pairs", 0, "meta_talk", "the revised response"),
            Malformed("examples", 1, "template", "Red team prompt:"),
        ],
        near=[Near(0, 1, "tfidf", 0.91), Near(2, 3, "exact", 1.0)],
        clusters=list(range(len(data.prompts))),
        leaks=[Leak("sft", "dpo", "prompt-1", "prompt-13", "near", "Question 1 about taxes")],
        leak_matrix={("sft", "dpo"): 1, ("sft", "held_out"): 0},
        reused=0,
        coverage={"ubuntu": {"prompts": 8, "sft": 4, "dpo": 4}, "honesty": {"prompts": 8, "sft": 4}, "thrift": {}},
        openings=Openings(
            {"prompt": [("question 0 about taxes in", 3)], "chosen": [("a careful answer to begin", 5)]},
            {"prompt": 3.2, "chosen": 1.0},
            0.42,
            "a careful answer to begin",
            "chosen",
        ),
        types=Types(
            {"chosen": {"complies": 8, "redirects": 3, "refuses": 1}, "rejected": {"complies": 12}},
            {"chosen": share(1, 12)},
            half,
            share(1, 4),
        ),
        diversity=Diversity(6.5, {"ubuntu": 2.5, "honesty": 3.0}, {"ubuntu": 0.8}),
        lengths=Lengths(
            11.0, 4.0, 2.75, 2.75, share(pairs, pairs), 0.001, share(pairs, pairs), True, 0, {"ubuntu": 2.7}, 1.0, 7.0,
            half,
        ),
        blind=blind,
        identified=Identified(
            share(10, 24), share(20, 24), {"ubuntu": {"ubuntu": 3, "honesty": 5}, "honesty": {"thrift": 8}},
            [("ubuntu", "honesty", 0.7)],
        ),
        grounding=Grounding(share(3, 24), share(12, 12), {"ubuntu": share(4, 4), "honesty": share(0, 4)}, ["honesty"]),
        notes=["Nearest principles were measured on 24 prompts."],
    )  # fmt: skip
    return replace(measured, **changes)


GATES = (
    Gate("malformed", 2 / 24, 0.0, "red", "8.3 % of 24 rows are malformed", "cai repair --run made"),
    Gate("leaks", 1, 0, "amber", "1 prompt stands in two splits", "cai repair --run made"),
    Gate("duplicates", 0, 0, "green", "no prompt is there twice", ""),
    Gate("length_only", 1.0, 0.65, "red", "chosen is longer in 100 % of 12 pairs", "cai repair --run made"),
    Gate("length_ratio", 2.75, 1.25, "red", "chosen has 2.75 times the words of rejected", "cai repair --run made"),
    Gate("prompt_blind", None, 0.75, "grey", "fewer than 10 pairs", ""),
)


def made_view(data: Data | None = None, gates: tuple[Gate, ...] = GATES, **changes: Any) -> View:
    data = data or made_data()
    return View(data, made_measured(data, **changes), list(gates))
