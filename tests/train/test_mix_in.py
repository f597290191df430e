"""Rows mixed in: every known shape, as many as the weight says, no held-out prompt; one bad row stops nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from jobs.common.errors import ConfigError, DataError
from jobs.common.fetched import Fetched, FetchedFile, FetchedStudent
from jobs.common.jsonl import sha256_file
from jobs.common.ledger import Ledger
from jobs.common.records import Dropped
from jobs.common.settings import MixInSettings
from jobs.train import examples, mix_in
from jobs.train.examples import Row
from jobs.train.fitted import Fitted, fit
from jobs.train.mix_in import MixIns, mixed_rows
from jobs.train.student import Student, load_tokenizer
from tests.train.builders import make_context, red_team

STUDENT = FetchedStudent(kind="folder", path="x", name="x")
D = MixInSettings(dataset="d", weight=1)
USER, ANSWER = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
MESSAGES = [USER, ANSWER]
REJECTED = [USER, {"role": "assistant", "content": "B"}]


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in rows))
    return path


def source(path: Path, section: str, ledger: Ledger, weight: float = 1, seed: int = 0) -> MixIns:
    """The rows of a file as the one mix-in of a section."""
    recipe: dict[str, Any] = {"seed": seed, section: {"mix_in": [{"dataset": "d", "weight": weight}]}}
    context = make_context(path.parent, **recipe)
    fetched = Fetched(student=STUDENT, mix_in={"d@main/train": FetchedFile(path=path.name, sha256=sha256_file(path))})
    return MixIns(context, fetched, section, ledger)


def one(tmp_path: Path, section: str, record: Any) -> Row | Dropped:
    return mix_in.read_rows(jsonl(tmp_path / "rows.jsonl", [record]), section, D, [1])[0]


@pytest.mark.parametrize(
    ("section", "record", "prompt", "answers"),
    [
        ("sft", {"messages": MESSAGES}, "Q", {"completion": "A"}),
        ("sft", {"prompt": "Q", "completion": "A"}, "Q", {"completion": "A"}),
        ("sft", {"prompt": MESSAGES[:1], "completion": MESSAGES[1:]}, "Q", {"completion": "A"}),
        ("sft", {"prompt": "Q", "completion": MESSAGES}, "Q", {"completion": "A"}),
        ("dpo", {"prompt": "Q", "chosen": "A", "rejected": "B"}, "Q", {"chosen": "A", "rejected": "B"}),
        ("dpo", {"prompt": "Q", "chosen": MESSAGES, "rejected": MESSAGES}, "Q", {"chosen": "A", "rejected": "A"}),
        ("dpo", {"chosen": MESSAGES, "rejected": MESSAGES}, "Q", {"chosen": "A", "rejected": "A"}),
    ],
)
def test_every_known_shape_of_a_mix_in_row(
    tmp_path: Path, section: str, record: dict[str, Any], prompt: str, answers: dict[str, str]
) -> None:
    found = one(tmp_path, section, record)

    assert isinstance(found, Row)
    assert found.prompt == examples.said("user", prompt)
    assert found.answers == {name: examples.said("assistant", text) for name, text in answers.items()}
    assert found.id == "mix_in:d:1"


ULTRACHAT = {"prompt": "Q", "prompt_id": "f0", "messages": [*MESSAGES, {"role": "user", "content": "R"}, ANSWER]}
ULTRAFEEDBACK = {
    "prompt": "Q", "prompt_id": "f0", "chosen": MESSAGES, "rejected": REJECTED, "messages": MESSAGES,
    "score_chosen": 8.5, "score_rejected": 7.0,
}  # fmt: skip
HARMLESS = {
    "index": 3, "prompt": "Q", "init_prompt": "Q", "init_response": "B", "critic_prompt": "c", "critic_response": "c",
    "revision_prompt": "r", "revision_response": "A", "messages": MESSAGES, "chosen": MESSAGES, "rejected": REJECTED,
}  # fmt: skip


@pytest.mark.parametrize(
    ("section", "record", "answers"),
    [
        ("sft", ULTRACHAT, [["A", "R", "A"]]),
        ("dpo", ULTRAFEEDBACK, [["A"], ["B"]]),
        ("sft", HARMLESS, [["A"]]),
        ("dpo", HARMLESS, [["A"], ["B"]]),
    ],
    ids=["ultrachat_200k", "ultrafeedback_binarized", "cai-conversation-harmless sft", "… prefs"],
)
def test_the_hub_datasets_that_recipes_name_are_read_from_parquet_with_all_their_columns(
    tmp_path: Path, section: str, record: dict[str, Any], answers: list[list[str]]
) -> None:
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([record] * 3), path)

    second, first = mix_in.read_rows(path, section, D, [2, 1])

    assert (second.id, first.id) == ("mix_in:d:2", "mix_in:d:1")
    assert isinstance(first, Row)
    assert first.prompt == [USER]
    assert [[turn["content"] for turn in answer] for answer in first.answers.values()] == answers


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "x"}', r"rows.jsonl:1: a mix-in row for sft needs messages.*found text"),
        ('{"completion": "x"}', r"rows.jsonl:1: a mix-in row for sft needs messages.*found completion"),
        ("{", "rows.jsonl:1: not JSON"),
        ("1", "rows.jsonl:1: expected an object, found int"),
        ('{"messages": [1]}', "role and content"),
    ],
)
def test_a_mix_in_row_of_another_shape_stops_with_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(line)

    with pytest.raises(DataError, match=message):
        mix_in.read_rows(path, "sft", D, [1])


def test_a_conversation_that_ends_with_a_question_ends_at_its_last_answer(tmp_path: Path) -> None:
    found = one(tmp_path, "sft", {"messages": [*MESSAGES, USER, ANSWER, USER]})

    assert isinstance(found, Row)
    assert found.prompt == [USER]
    assert found.answers == {"completion": [ANSWER, USER, ANSWER]}


@pytest.mark.parametrize(
    ("section", "record"),
    [
        ("sft", {"messages": [USER]}),
        ("sft", {"messages": [ANSWER]}),
        ("sft", {"messages": []}),
        ("sft", {"messages": None, "prompt": "Q", "completion": None}),
        ("dpo", {"chosen": [*MESSAGES, USER], "rejected": REJECTED}),
        ("dpo", {"prompt": "Q", "chosen": "A", "rejected": None}),
        ("dpo", {"chosen": [], "rejected": []}),
    ],
)
def test_a_row_without_an_answer_at_its_end_is_dropped_by_name(
    tmp_path: Path, section: str, record: dict[str, Any]
) -> None:
    found = one(tmp_path, section, record)

    assert isinstance(found, Dropped)
    assert (found.id, found.drop_reason, found.record) == ("mix_in:d:1", "no_answer", record)


@pytest.mark.parametrize(
    ("section", "record"),
    [
        ("sft", {"messages": [{"role": "user", "content": " Q\n"}, {"role": "assistant", "content": "\n\nA "}]}),
        ("sft", {"prompt": " Q\n", "completion": "\n A"}),
        ("dpo", {"prompt": " Q\n", "chosen": "\nA", "rejected": "A\n"}),
    ],
)
def test_an_answer_is_taken_without_the_white_space_around_it_and_a_prompt_as_it_is(
    tmp_path: Path, section: str, record: dict[str, Any]
) -> None:
    found = one(tmp_path, section, record)

    assert isinstance(found, Row)
    assert found.prompt == examples.said("user", " Q\n")
    assert [answer for answer in found.answers.values() if answer != [ANSWER]] == []


def mixed(tmp_path: Path, tokenizer: Any, weight: float, own: int, seed: int = 0) -> Fitted:
    path = tmp_path / "mix.parquet"
    rows = [{"prompt": f"Q{i}", "completion": f"A{i}"} for i in range(10)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    ledger = Ledger([red_team("Q3"), red_team("Q4", "sft")])
    return mixed_rows(source(path, "sft", ledger, weight, seed), own, tokenizer)


def test_weight_is_a_multiple_of_our_rows_sampled_with_the_seed_without_held_out_prompts(
    tmp_path: Path, tokenizer: Any
) -> None:
    first, again, other = (mixed(tmp_path, tokenizer, 1.5, 4, seed) for seed in (0, 0, 1))

    ids = [it.id for it in first.rows]
    assert len(ids) == len(set(ids)) == 6
    assert ids == [it.id for it in again.rows] != [it.id for it in other.rows]
    assert "mix_in:d:4" not in ids


def test_a_row_with_a_held_out_prompt_is_named_and_another_is_drawn_for_it(tmp_path: Path, tokenizer: Any) -> None:
    found = mixed(tmp_path, tokenizer, 9 / 4, 4)

    assert len({it.id for it in found.rows}) == 9
    assert [(it.id, it.drop_reason) for it in found.dropped] == [("mix_in:d:4", "held_out_prompt")]


def test_for_a_row_that_is_too_long_another_is_drawn_and_the_weight_is_kept(
    tmp_path: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = ["Because. " * 300 if i % 2 else "Because." for i in range(40)]
    rows = [{"prompt": f"Q{i}", "completion": answer} for i, answer in enumerate(answers)]
    mix_ins = source(jsonl(tmp_path / "mix.jsonl", rows), "sft", Ledger([]), weight=3)

    found = mixed_rows(mix_ins, 6, tokenizer)

    assert len({it.id for it in found.rows}) == 18
    assert {it.drop_reason for it in found.dropped} == {"mix_in_too_long"}
    assert "rows wanted" not in capsys.readouterr().err


def test_a_mix_in_of_which_nothing_fits_is_read_a_few_times_and_says_how_many_rows_are_lacking(
    tmp_path: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": f"Q{i}", "completion": "Because. " * 300} for i in range(60)]
    passes: list[int] = []
    original = mix_in.read_rows

    def counted(path: Path, section: str, settings: MixInSettings, numbers: Any) -> Any:
        passes.append(len(numbers))
        return original(path, section, settings, numbers)

    monkeypatch.setattr(mix_in, "read_rows", counted)

    found = mixed_rows(source(jsonl(tmp_path / "mix.jsonl", rows), "sft", Ledger([])), 2, tokenizer)

    assert (found.rows, len(found.dropped)) == ([], 60)
    assert passes == [2, 2, 4, 8, 16, 28]
    assert "mix_in d (train): 2 rows wanted (weight 1), 0 of its 60 can be trained" in capsys.readouterr().err


def test_a_mix_in_with_too_few_rows_gives_all_and_says_so(
    tmp_path: Path, tokenizer: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(mixed(tmp_path, tokenizer, 5, 4).rows) == 9
    assert "20 rows wanted (weight 5), 9 of its 10 can be trained" in capsys.readouterr().err


@pytest.mark.parametrize("asked_in", ["first turn", "later turn"])
def test_a_mix_in_row_near_a_held_out_prompt_is_dropped_with_the_prompt_it_is_near_to(
    tmp_path: Path, tokenizer: Any, asked_in: str
) -> None:
    held = "Why should I share the water of our borehole with people who never once helped me?"
    asked = [f"Please answer: {held.upper().rstrip('?')} Thanks.", "Why should I share water with people I never met?"]
    before = [] if asked_in == "first turn" else MESSAGES
    rows = [{"messages": [*before, {"role": "user", "content": text}, ANSWER]} for text in asked]
    mix_ins = source(jsonl(tmp_path / "mix.jsonl", rows), "sft", Ledger([red_team(held)]))

    found = mixed_rows(mix_ins, 2, tokenizer)

    assert [it.id for it in found.rows] == ["mix_in:d:2"]
    (refused,) = found.dropped
    assert (refused.id, refused.drop_reason) == ("mix_in:d:1", "held_out_prompt")
    assert refused.detail.startswith("its prompt is held_out in prompts.jsonl (near duplicate of ubuntu-")


TOOL, SYSTEM = {"role": "tool", "content": "T"}, {"role": "system", "content": "S"}
SILENT = {"role": "assistant", "content": " "}
GOOD = {"sft": {"messages": MESSAGES}, "dpo": {"chosen": MESSAGES, "rejected": REJECTED}}


@pytest.mark.parametrize(
    ("section", "bad", "reason"),
    [
        ("sft", {"messages": [USER, SILENT]}, "empty_answer"),
        ("sft", {"messages": [USER, SILENT, *MESSAGES]}, "empty_answer"),
        ("sft", {"messages": [USER]}, "no_answer"),
        ("dpo", {"chosen": MESSAGES, "rejected": MESSAGES}, "same_answer"),
        ("sft", {"messages": [USER, ANSWER, ANSWER, *MESSAGES]}, "odd_turns"),
        ("sft", {"messages": [*MESSAGES, TOOL, ANSWER]}, "odd_turns"),
        ("sft", {"messages": [TOOL, *MESSAGES]}, "odd_turns"),
        ("sft", {"messages": [*MESSAGES, SYSTEM, ANSWER]}, "odd_turns"),
        ("sft", {"messages": [SYSTEM, ANSWER]}, "odd_turns"),
        ("dpo", {"prompt": [USER, TOOL, USER], "chosen": "A", "rejected": "B"}, "odd_turns"),
        ("dpo", {"prompt": MESSAGES, "chosen": "A", "rejected": "B"}, "odd_turns"),
    ],
)
def test_rows_that_teach_nothing_are_dropped_by_reason(
    tmp_path: Path, tokenizer: Any, section: str, bad: dict[str, Any], reason: str
) -> None:
    mix_ins = source(jsonl(tmp_path / "mix.jsonl", [bad, GOOD[section]]), section, Ledger([]))

    found = mixed_rows(mix_ins, 2, tokenizer)

    assert [it.id for it in found.rows] == ["mix_in:d:2"]
    assert [(it.id, it.drop_reason) for it in found.dropped] == [("mix_in:d:1", reason)]


@pytest.mark.parametrize("template", ["chatml", "mistral", "zephyr"])
@pytest.mark.parametrize(
    "turns",
    [[SYSTEM, *MESSAGES], [*MESSAGES, SYSTEM, *MESSAGES], [USER, *MESSAGES], [ANSWER, *MESSAGES, USER, ANSWER]],
    ids=["a system's turn", "a later one", "a user twice", "an answer first"],
)
def test_turns_that_every_template_has_stay_and_so_does_the_end_of_each_answer(
    students: Any, tmp_path: Path, template: str, turns: list[dict[str, str]]
) -> None:
    folder = students("chatml" if template == "chatml" else "mistral")
    tokenizer = load_tokenizer(Student(folder, "tiny", "1", template, "again"))
    mix_ins = source(jsonl(tmp_path / "mix.jsonl", [{"messages": turns}]), "sft", Ledger([]))

    (row,) = mixed_rows(mix_ins, 1, tokenizer).rows

    whole = tokenizer.apply_chat_template(
        row.prompt + row.answers["completion"], return_dict=True, return_assistant_tokens_mask=True
    )
    pieces = sum(now > before for before, now in pairwise([0, *whole["assistant_masks"]]))
    assert pieces == turns.count(ANSWER)
    assert len(row.asked("completion")) == turns[1:].count(ANSWER)


def conversation(turns: int) -> Row:
    said = [examples.said("user", f"Question {n}?") + examples.said("assistant", f"Answer {n}.") for n in range(turns)]
    messages = [turn for pair in said for turn in pair]
    return Row("mix_in:d:1", "mix_in", messages[:1], {"completion": messages[1:]}, {})


def test_a_long_conversation_of_a_mix_in_ends_at_its_last_answer_that_fits(tokenizer: Any) -> None:
    whole, two = conversation(4), conversation(2)
    limit = len(examples.encode(tokenizer, two.prompt + two.answers["completion"]))

    assert fit([whole], tokenizer, limit).rows == [two]
    assert fit([whole], tokenizer, 500).rows == [whole]
    (dropped,) = fit([conversation(1)], tokenizer, limit // 2).dropped
    assert dropped.drop_reason in {"mix_in_too_long", "prompt_too_long"}


def test_a_mix_in_that_was_not_fetched_names_the_command(tmp_path: Path, tokenizer: Any) -> None:
    mix_ins = source(jsonl(tmp_path / "mix.jsonl", [{"messages": MESSAGES}]), "sft", Ledger([]))

    with pytest.raises(ConfigError, match=r"d \(train\) was not fetched. Run: cai fetch"):
        mixed_rows(replace(mix_ins, fetched=Fetched(student=STUDENT)), 1, tokenizer)


def test_a_mix_in_that_changed_since_fetch_stops(tmp_path: Path, tokenizer: Any) -> None:
    path = jsonl(tmp_path / "mix.jsonl", [{"messages": MESSAGES}])
    mix_ins = source(path, "sft", Ledger([]))
    path.write_text("{}\n")

    with pytest.raises(DataError, match="changed since"):
        mixed_rows(mix_ins, 1, tokenizer)
