"""Rows in, rows dropped, rows cut: counted and named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.common.errors import DataError
from jobs.train import data, examples
from jobs.train.examples import Row
from jobs.train.fitted import Fitted, fit
from jobs.train.student import Student, load_tokenizer
from tests.train.builders import finish_fetch, finish_generate, make_context, pair, sft_example


def row(prompt: str, answer: str = "Yes, together.") -> Row:
    return examples.sft_rows([sft_example(prompt, answer)])[0]


def test_rows_that_fit_are_kept_whole_and_in_order(tokenizer: Any) -> None:
    rows = [row(f"Why {i}?") for i in range(5)]

    found = fit(rows, tokenizer, 200)

    assert found.rows == rows
    assert found.dropped == found.cut == []
    assert found.tokens == sum(len(examples.encode(tokenizer, it.prompt + it.answers["completion"])) for it in rows)


def test_a_long_prompt_is_dropped_and_a_long_answer_is_cut_with_their_lengths(tokenizer: Any) -> None:
    prompt_tokens = len(examples.encode(tokenizer, row("Why?").prompt, ask=True))
    limit = prompt_tokens + 3

    found = fit([row("Why?"), row("Why " * 30)], tokenizer, limit)

    assert [it.drop_reason for it in found.cut] == ["truncated"]
    assert f"cut to {limit}" in found.cut[0].detail
    assert [(it.drop_reason, it.record["prompt"]) for it in found.dropped] == [("prompt_too_long", "Why " * 30)]
    assert found.tokens == limit


def test_a_prompt_that_fills_max_length_leaves_no_room_and_is_dropped(tokenizer: Any) -> None:
    prompt_tokens = len(examples.encode(tokenizer, row("Why?").prompt, ask=True))

    assert fit([row("Why?")], tokenizer, prompt_tokens).rows == []
    assert len(fit([row("Why?")], tokenizer, prompt_tokens + 1).rows) == 1


@pytest.mark.parametrize("text", ["a<|im_end|>\n<|im_start|>user\nb", "a<|endoftext|>"])
def test_text_that_would_close_a_turn_is_dropped(tokenizer: Any, text: str) -> None:
    found = fit([row("Why?", text), row(text)], tokenizer, 400)

    assert [it.drop_reason for it in found.dropped] == ["special_token"] * 2


@pytest.mark.parametrize("special", [True, False])
def test_a_token_that_only_the_template_writes_is_dropped_too(students: Callable[[str], Path], special: bool) -> None:
    mistral = load_tokenizer(Student(students("mistral"), "tiny", "1", "mistral", "again"))
    mistral.add_tokens(["[INST]", "[/INST]", "[TOOL_CALLS]"], special_tokens=special)

    found = fit([row("Why? [/INST] Sure."), row("What is [TOOL_CALLS]?")], mistral, 400)

    assert [it.record["prompt"] for it in found.dropped] == ["Why? [/INST] Sure."]


def test_text_that_spells_a_turn_of_zephyrs_is_dropped(students: Callable[[str], Path]) -> None:
    zephyr = load_tokenizer(Student(students("mistral"), "tiny", "1", "zephyr", "again"))

    found = fit([row("Why?\n<|assistant|>\nSure."), row("What is <|x?")], zephyr, 400)

    assert [it.detail for it in found.dropped] == ["the text holds <|assistant|>, which ends or opens a turn"]


def test_a_pair_is_measured_on_its_longer_side(tokenizer: Any) -> None:
    short, long = "Yes.", "Yes. " * 40
    for chosen, rejected in ((short, long), (long, short)):
        found = fit(examples.pair_rows([pair("Why?", chosen, rejected)]), tokenizer, 80)
        assert len(found.cut) == 1


@pytest.mark.parametrize(("bad", "stops"), [(1, False), (2, True)], ids=["5 %", "over 5 %"])
def test_more_than_five_percent_lost_stops_with_counts_and_the_next_command(
    tmp_path: Path, bad: int, stops: bool
) -> None:
    context = make_context(tmp_path, sft={"max_length": 40})
    lost = [row(f"x{i}").drop("prompt_too_long", "") for i in range(bad)]
    found = Fitted([row(str(i)) for i in range(20 - bad)], lost, [], 0, 0)

    if not stops:
        data.require_few_lost(found, context, "sft")
        return
    with pytest.raises(DataError, match=r"2 dropped and 0 cut of 20 rows.*--set sft.max_length=80"):
        data.require_few_lost(found, context, "sft")


@pytest.mark.parametrize(
    ("now", "advice"),
    [
        (200, r"Run: cai sft --run r --redo --set sft\.max_length=400$"),
        (400, r"Run: cai sft --run r --redo --set sft\.max_length=512$"),
        (512, r"The student reads no more: shorten those rows, or ask for others\. Run: cai generate --run r --redo$"),
    ],
)
def test_a_longer_limit_is_advised_as_far_as_the_student_reads(
    tmp_path: Path, students: Callable[[str], Path], now: int, advice: str
) -> None:
    context = make_context(tmp_path, sft={"max_length": now})
    finish_fetch(context, students("chatml"))
    finish_generate(context, {})
    rows = [row(str(i)) for i in range(20)]
    found = Fitted(rows, [], [it.drop("truncated", "") for it in rows[:2]], 0, 0)

    with pytest.raises(DataError, match=advice):
        data.require_few_lost(found, context, "sft")


def test_cut_rows_count_towards_the_limit(tmp_path: Path) -> None:
    rows = [row(str(i)) for i in range(20)]
    found = Fitted(rows, [], [it.drop("truncated", "") for it in rows[:2]], 0, 0)

    with pytest.raises(DataError, match="0 dropped and 2 cut of 20 rows"):
        data.require_few_lost(found, make_context(tmp_path), "dpo")


def test_no_rows_names_what_generate_dropped(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    finish_fetch(context, tmp_path / "student")
    finish_generate(context, {}, dropped={"unchanged": 7, "meta_talk": 2})

    with pytest.raises(DataError, match=r"sft.jsonl: 0 rows.*2 meta_talk, 7 unchanged"):
        data.require_rows(context, [], "sft.jsonl")
