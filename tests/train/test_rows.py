"""Rows in, rows dropped, rows mixed in: counted, named, never a held-out prompt."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from jobs.common.errors import ConfigError, DataError
from jobs.common.fetched import Fetched, FetchedFile, FetchedStudent
from jobs.common.jsonl import sha256_file
from jobs.common.ledger import Ledger
from jobs.common.settings import MixInSettings
from jobs.train import examples, mix_in
from jobs.train.examples import Row
from jobs.train.student import Student, load_tokenizer
from tests.train.builders import finish_generate, make_context, pair, red_team, sft_example

STUDENT = FetchedStudent(kind="folder", path="x", name="x")


@pytest.fixture(scope="module")
def tokenizer(students: Callable[[str], Path]) -> Any:
    return load_tokenizer(Student(students("chatml"), "tiny", "1", "chatml"))


def row(prompt: str, answer: str = "Yes, together.") -> Row:
    return examples.sft_rows([sft_example(prompt, answer)])[0]


def test_rows_that_fit_are_kept_whole_and_in_order(tokenizer: Any) -> None:
    rows = [row(f"Why {i}?") for i in range(5)]

    fitted = examples.fit(rows, tokenizer, 200)

    assert fitted.rows == rows
    assert fitted.dropped == fitted.cut == []
    assert fitted.tokens == sum(len(examples.encode(tokenizer, it.prompt + it.answers["completion"])) for it in rows)


def test_a_long_prompt_is_dropped_and_a_long_answer_is_cut_with_their_lengths(tokenizer: Any) -> None:
    prompt_tokens = len(examples.encode(tokenizer, row("Why?").prompt, ask=True))
    limit = prompt_tokens + 3

    fitted = examples.fit([row("Why?"), row("Why " * 30)], tokenizer, limit)

    assert [it.drop_reason for it in fitted.cut] == ["truncated"]
    assert f"cut to {limit}" in fitted.cut[0].detail
    assert [(it.drop_reason, it.record["prompt"]) for it in fitted.dropped] == [("prompt_too_long", "Why " * 30)]
    assert fitted.tokens == limit


def test_a_prompt_that_fills_max_length_leaves_no_room_and_is_dropped(tokenizer: Any) -> None:
    prompt_tokens = len(examples.encode(tokenizer, row("Why?").prompt, ask=True))

    assert examples.fit([row("Why?")], tokenizer, prompt_tokens).rows == []
    assert len(examples.fit([row("Why?")], tokenizer, prompt_tokens + 1).rows) == 1


@pytest.mark.parametrize("text", ["a<|im_end|>\n<|im_start|>user\nb", "a<|endoftext|>"])
def test_text_that_would_close_a_turn_is_dropped(tokenizer: Any, text: str) -> None:
    fitted = examples.fit([row("Why?", text), row(text)], tokenizer, 400)

    assert [it.drop_reason for it in fitted.dropped] == ["special_token"] * 2


@pytest.mark.parametrize("special", [True, False])
def test_a_token_that_only_the_template_writes_is_dropped_too(students: Callable[[str], Path], special: bool) -> None:
    mistral = load_tokenizer(Student(students("mistral"), "tiny", "1", "mistral"))
    mistral.add_tokens(["[INST]", "[/INST]", "[TOOL_CALLS]"], special_tokens=special)

    fitted = examples.fit([row("Why? [/INST] Sure."), row("What is [TOOL_CALLS]?")], mistral, 400)

    assert [it.record["prompt"] for it in fitted.dropped] == ["Why? [/INST] Sure."]


def test_text_that_spells_a_turn_of_zephyrs_is_dropped(students: Callable[[str], Path]) -> None:
    zephyr = load_tokenizer(Student(students("mistral"), "tiny", "1", "zephyr"))

    fitted = examples.fit([row("Why?\n<|assistant|>\nSure."), row("What is <|x?")], zephyr, 400)

    assert [it.detail for it in fitted.dropped] == ["the text holds <|assistant|>, which ends or opens a turn"]


def test_a_pair_is_measured_on_its_longer_side(tokenizer: Any) -> None:
    short, long = "Yes.", "Yes. " * 40
    for chosen, rejected in ((short, long), (long, short)):
        fitted = examples.fit(examples.pair_rows([pair("Why?", chosen, rejected)]), tokenizer, 80)
        assert len(fitted.cut) == 1


@pytest.mark.parametrize(("bad", "stops"), [(1, False), (2, True)], ids=["5 %", "over 5 %"])
def test_more_than_five_percent_lost_stops_with_counts_and_the_next_command(
    tmp_path: Path, bad: int, stops: bool
) -> None:
    context = make_context(tmp_path, sft={"max_length": 40})
    lost = [row(f"x{i}").drop("prompt_too_long", "") for i in range(bad)]
    fitted = examples.Fitted([row(str(i)) for i in range(20 - bad)], lost, [], 0, 0)

    if not stops:
        examples.require_few_lost(fitted, context, "sft")
        return
    with pytest.raises(DataError, match=r"2 dropped and 0 cut of 20 rows.*--set sft.max_length=80"):
        examples.require_few_lost(fitted, context, "sft")


def test_cut_rows_count_towards_the_limit(tmp_path: Path) -> None:
    rows = [row(str(i)) for i in range(20)]
    fitted = examples.Fitted(rows, [], [it.drop("truncated", "") for it in rows[:2]], 0, 0)

    with pytest.raises(DataError, match="0 dropped and 2 cut of 20 rows"):
        examples.require_few_lost(fitted, make_context(tmp_path), "dpo")


def test_no_rows_names_what_generate_dropped(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    from tests.train.builders import finish_fetch

    finish_fetch(context, tmp_path / "student")
    finish_generate(context, {}, dropped={"unchanged": 7, "meta_talk": 2})

    with pytest.raises(DataError, match=r"sft.jsonl: 0 rows.*2 meta_talk, 7 unchanged"):
        examples.require_rows(context, [], "sft.jsonl")


MESSAGES = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
REJECTED = [MESSAGES[0], {"role": "assistant", "content": "B"}]


@pytest.mark.parametrize(
    ("section", "record", "prompt", "answers"),
    [
        ("sft", {"messages": MESSAGES}, "Q", {"completion": "A"}),
        ("sft", {"prompt": "Q", "completion": "A"}, "Q", {"completion": "A"}),
        ("sft", {"prompt": MESSAGES[:1], "completion": MESSAGES[1:]}, "Q", {"completion": "A"}),
        ("dpo", {"prompt": "Q", "chosen": "A", "rejected": "B"}, "Q", {"chosen": "A", "rejected": "B"}),
        ("dpo", {"prompt": "Q", "chosen": MESSAGES, "rejected": MESSAGES}, "Q", {"chosen": "A", "rejected": "A"}),
        ("dpo", {"chosen": MESSAGES, "rejected": MESSAGES}, "Q", {"chosen": "A", "rejected": "A"}),
    ],
)
def test_every_known_shape_of_a_mix_in_row(
    tmp_path: Path, section: str, record: dict[str, Any], prompt: str, answers: dict[str, str]
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(record) + "\n")

    found = mix_in.read_rows(path, section, MixInSettings(dataset="d", weight=1), [1])[0]

    assert found.prompt == examples.said("user", prompt)
    assert found.answers == {name: examples.said("assistant", text) for name, text in answers.items()}
    assert found.id == "mix_in:d:1"


ULTRACHAT = {"prompt": "Q", "prompt_id": "f0", "messages": [*MESSAGES, {"role": "user", "content": "R"}, MESSAGES[1]]}
ULTRAFEEDBACK = {
    "prompt": "Q", "prompt_id": "f0", "chosen": MESSAGES, "rejected": REJECTED, "messages": MESSAGES,
    "score_chosen": 8.5, "score_rejected": 7.0,
}  # fmt: skip
HARMLESS = {
    "index": 3, "prompt": "Q", "init_prompt": "Q", "init_response": "B", "critic_prompt": "c", "critic_response": "c",
    "revision_prompt": "r", "revision_response": "A", "messages": MESSAGES, "chosen": MESSAGES, "rejected": REJECTED,
}  # fmt: skip


@pytest.mark.parametrize(
    ("section", "record", "turns", "answers"),
    [
        ("sft", ULTRACHAT, ["Q", "A", "R"], ["A"]),
        ("dpo", ULTRAFEEDBACK, ["Q"], ["A", "B"]),
        ("sft", HARMLESS, ["Q"], ["A"]),
        ("dpo", HARMLESS, ["Q"], ["A", "B"]),
    ],
    ids=["ultrachat_200k", "ultrafeedback_binarized", "cai-conversation-harmless sft", "… prefs"],
)
def test_the_hub_datasets_that_recipes_name_are_read_from_parquet_with_all_their_columns(
    tmp_path: Path, section: str, record: dict[str, Any], turns: list[str], answers: list[str]
) -> None:
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([record] * 3), path)

    second, first = mix_in.read_rows(path, section, MixInSettings(dataset="d", weight=1), [2, 1])

    assert (second.id, first.id) == ("mix_in:d:2", "mix_in:d:1")
    assert [turn["content"] for turn in first.prompt] == turns
    assert [answer[0]["content"] for answer in first.answers.values()] == answers


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "x"}', r"rows.jsonl:1: a mix-in row for sft needs messages.*found text"),
        ("{", "rows.jsonl:1: not JSON"),
        ("1", "rows.jsonl:1: expected an object, found int"),
        ('{"messages": [{"role": "user", "content": "Q"}]}', "last message must be the assistant's"),
        ('{"messages": [1]}', "role and content"),
    ],
)
def test_a_mix_in_row_of_another_shape_stops_with_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(line)

    with pytest.raises(DataError, match=message):
        mix_in.read_rows(path, "sft", MixInSettings(dataset="d", weight=1), [1])


def mixed(tmp_path: Path, weight: float, own: int, seed: int = 0, split: str = "train") -> mix_in.Mixed:
    path = tmp_path / "mix.parquet"
    rows = [{"prompt": f"Q{i}", "completion": f"A{i}"} for i in range(10)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    context = make_context(tmp_path, seed=seed, sft={"mix_in": [{"dataset": "d", "weight": weight, "split": split}]})
    fetched = Fetched(student=STUDENT, mix_in={"d@main/train": FetchedFile(path=path.name, sha256=sha256_file(path))})
    ledger = Ledger([red_team("Q3"), red_team("Q4", "sft")])
    return mix_in.mixed_rows(context, fetched, "sft", [row(str(i)) for i in range(own)], ledger)


def test_weight_is_a_multiple_of_our_rows_sampled_with_the_seed_without_held_out_prompts(tmp_path: Path) -> None:
    first, again, other = (mixed(tmp_path, 1.5, 4, seed) for seed in (0, 0, 1))

    ids = [it.id for it in first.rows]
    assert len(ids) == len(set(ids)) == 6
    assert ids == [it.id for it in again.rows] != [it.id for it in other.rows]
    assert "mix_in:d:4" not in ids


def test_a_row_with_a_held_out_prompt_is_named_and_another_is_drawn_for_it(tmp_path: Path) -> None:
    found = mixed(tmp_path, 9 / 4, 4)

    assert len({it.id for it in found.rows}) == 9
    assert [(it.id, it.drop_reason) for it in found.refused] == [("mix_in:d:4", "held_out_prompt")]


def test_a_mix_in_row_near_a_held_out_prompt_is_dropped_with_the_prompt_it_is_near_to(tmp_path: Path) -> None:
    held = "Why should I share the water of our borehole with people who never once helped me?"
    asked = [f"Please answer: {held.upper().rstrip('?')} Thanks.", "Why should I share water with people I never met?"]
    rows = [{"messages": [{"role": "user", "content": text}, MESSAGES[1]]} for text in asked]
    path = tmp_path / "mix.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in rows))
    context = make_context(tmp_path, sft={"mix_in": [{"dataset": "d", "weight": 1}]})
    fetched = Fetched(student=STUDENT, mix_in={"d@main/train": FetchedFile(path=path.name, sha256=sha256_file(path))})

    found = mix_in.mixed_rows(context, fetched, "sft", [row("a"), row("b")], Ledger([red_team(held)]))

    assert [it.id for it in found.rows] == ["mix_in:d:2"]
    (refused,) = found.refused
    assert (refused.id, refused.drop_reason) == ("mix_in:d:1", "held_out_prompt")
    assert refused.detail.startswith("its prompt is held_out in prompts.jsonl (near duplicate of ubuntu-")


def test_a_mix_in_with_too_few_rows_gives_all_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(mixed(tmp_path, 5, 4).rows) == 9
    assert "20 rows wanted (weight 5.0), all 9 taken" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("section", "good", "bad", "reason"),
    [
        (
            "sft",
            {"messages": MESSAGES},
            {"messages": [MESSAGES[0], {"role": "assistant", "content": " "}]},
            "empty_answer",
        ),
        ("dpo", {"chosen": MESSAGES, "rejected": REJECTED}, {"chosen": MESSAGES, "rejected": MESSAGES}, "same_answer"),
    ],
)
def test_rows_that_teach_nothing_are_dropped_by_reason(
    tmp_path: Path, section: str, good: dict[str, Any], bad: dict[str, Any], reason: str
) -> None:
    path = tmp_path / "mix.jsonl"
    path.write_text("".join(json.dumps(it) + "\n" for it in (bad, good)))
    recipe: dict[str, Any] = {section: {"mix_in": [{"dataset": "d", "weight": 1}]}}
    context = make_context(tmp_path, **recipe)
    fetched = Fetched(student=STUDENT, mix_in={"d@main/train": FetchedFile(path=path.name, sha256=sha256_file(path))})

    found = mix_in.mixed_rows(context, fetched, section, [row("a"), row("b")], Ledger([]))

    assert [it.id for it in found.rows] == ["mix_in:d:2"]
    assert [(it.id, it.drop_reason) for it in found.refused] == [("mix_in:d:1", reason)]


def conversation(turns: int) -> Row:
    said = [examples.said("user", f"Question {n}?") + examples.said("assistant", f"Answer {n}.") for n in range(turns)]
    messages = [turn for pair in said for turn in pair]
    return Row("mix_in:d:1", "mix_in", messages[:-1], {"completion": messages[-1:]}, {})


def test_a_long_conversation_of_a_mix_in_ends_at_its_last_answer_that_fits(tokenizer: Any) -> None:
    whole, two = conversation(4), conversation(2)
    limit = len(examples.encode(tokenizer, two.prompt + two.answers["completion"]))

    assert examples.fit([whole], tokenizer, limit).rows == [two]
    assert examples.fit([whole], tokenizer, 500).rows == [whole]
    (dropped,) = examples.fit([conversation(1)], tokenizer, limit // 2).dropped
    assert dropped.drop_reason in {"mix_in_too_long", "prompt_too_long"}


def test_what_a_mix_in_loses_stops_nothing(tmp_path: Path, tokenizer: Any) -> None:
    long = replace(row("Why?", "Because. " * 200), principle_id="mix_in")
    fitted = examples.fit([row("Why?"), long, long], tokenizer, 200)

    examples.require_few_lost(fitted, make_context(tmp_path), "sft")
    assert ([it.drop_reason for it in fitted.dropped], fitted.cut) == (["mix_in_too_long"] * 2, [])


def test_a_test_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="test split"):
        mixed(tmp_path, 1, 4, split="test_prefs")


def test_a_mix_in_that_was_not_fetched_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Run: cai fetch"):
        mixed(tmp_path, 1, 4, split="train_sft")


def test_a_mix_in_that_changed_since_fetch_stops(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text("{}\n")
    context = make_context(tmp_path, sft={"mix_in": [{"dataset": "d", "weight": 1}]})
    fetched = Fetched(student=STUDENT, mix_in={"d@main/train": FetchedFile(path="d.jsonl", sha256="0")})

    with pytest.raises(DataError, match="changed since"):
        mix_in.mixed_rows(context, fetched, "sft", [], Ledger([]))
