"""Every known shape of a row, and the reason given for one that is none."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st

from jobs.audit.shapes import BadRowError, Place, read_row, split_word
from jobs.measure.data import Example, Pair, Prompt

USER, GOOD, BAD = (
    {"role": role, "content": text} for role, text in (("user", "Q?"), ("assistant", "Yes."), ("assistant", "No."))
)
PLACE = Place("file:1", "train")

PAIRS: dict[str, dict[str, Any]] = {
    "strings": {"prompt": "Q?", "chosen": "Yes.", "rejected": "No."},
    "chat turns with their prompt": {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
    "whole conversations": {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "alignment-handbook": {"prompt": "Q?", "messages": [USER, GOOD], "chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "one text": {"chosen": "\n\nHuman: Q?\n\nAssistant: Yes.", "rejected": "\n\nHuman: Q?\n\nAssistant: No."},
    "from and value": {
        "chosen": [{"from": "human", "value": "Q?"}, {"from": "gpt", "value": "Yes."}],
        "rejected": [{"from": "human", "value": "Q?"}, {"from": "gpt", "value": "No."}],
    },
    "a system turn": {"chosen": [{"role": "system", "content": "Be good."}, USER, GOOD], "rejected": [USER, BAD]},
}
EXAMPLES: dict[str, dict[str, Any]] = {
    "strings": {"prompt": "Q?", "completion": "Yes."},
    "chat turns with their prompt": {"prompt": [USER], "completion": [GOOD]},
    "messages": {"messages": [USER, GOOD]},
    "unpaired preference that is good": {"prompt": "Q?", "completion": "Yes.", "label": True},
}
BAD_ROWS: list[tuple[Any, str]] = [
    ("text", "not_an_object"),
    ([1], "not_an_object"),
    ({}, "unknown_columns"),
    ({"text": "Q? Yes."}, "unknown_columns"),
    ({"prompt": None}, "no_prompt"),
    ({"prompt": "Q?", "chosen": "Yes."}, "one_side_missing"),
    ({"prompt": "Q?", "chosen": "Yes.", "rejected": None}, "one_side_missing"),
    ({"chosen": "Yes.", "rejected": "No."}, "no_prompt"),
    ({"completion": "Yes."}, "no_prompt"),
    ({"messages": [USER]}, "no_answer"),
    ({"messages": []}, "no_answer"),
    ({"messages": "Yes."}, "no_prompt"),
    ({"prompt": 3, "completion": "Yes."}, "prompt_not_text"),
    ({"prompt": "Q?", "chosen": 1, "rejected": 2}, "chosen_not_text"),
    ({"messages": [USER, {"role": "assistant", "content": [{"type": "text"}]}]}, "messages_not_text"),
    ({"messages": [USER, {"role": "assistant", "content": None}]}, "messages_not_text"),
    ({"chosen": [USER, GOOD], "rejected": [{"role": "user", "content": "Other?"}, BAD]}, "different_prompts"),
    ({"prompt": "Q?", "completion": "No.", "label": False}, "labelled_bad"),
    ({"prompt": "Q?", "completion": "half \ud800"}, "broken_unicode"),
]


@pytest.mark.parametrize("row", PAIRS.values(), ids=PAIRS)
def test_a_pair_in_any_shape_is_the_same_pair(row: dict[str, Any]) -> None:
    assert read_row(row, PLACE) == Pair("file:1", "", "Q?", "Yes.", "No.")


@pytest.mark.parametrize("row", EXAMPLES.values(), ids=EXAMPLES)
def test_a_supervised_row_in_any_shape_is_the_same_row(row: dict[str, Any]) -> None:
    assert read_row(row, PLACE) == Example("file:1", "", "Q?", "Yes.")


def test_the_files_name_decides_where_a_row_could_be_both() -> None:
    row = PAIRS["alignment-handbook"] | {"init_prompt": "Q?", "init_response": "No.", "critic_response": "It is rude."}
    found = read_row(row, Place("train_sft:1", "train", "examples"))
    assert found == Example("train_sft:1", "", "Q?", "Yes.", source_prompt="Q?", initial="No.", critique="It is rude.")


def test_our_own_columns_are_kept() -> None:
    row = PAIRS["strings"] | {
        "id": "ubuntu-1", "principle_id": "ubuntu", "kind": "benign_twin", "language": "zu",
        "preference_probability": 0.8,
    }  # fmt: skip
    wanted = Pair("ubuntu-1", "ubuntu", "Q?", "Yes.", "No.", kind="benign_twin", language="zu", probability=0.8)
    assert read_row(row, PLACE) == wanted
    prompt = {"id": "t", "principle_id": "ubuntu", "prompt": "Q?", "split": "held_out", "twin_of": "u", "cluster": "c"}
    assert read_row(prompt, PLACE) == Prompt("t", "ubuntu", "Q?", "held_out", twin_of="u", cluster="c")


def test_earlier_turns_are_part_of_the_prompt() -> None:
    found = read_row({"messages": [USER, GOOD, {"role": "user", "content": "And?"}, BAD]}, PLACE)
    assert found == Example("file:1", "", "Q?\n\nYes.\n\nAnd?", "No.")


@pytest.mark.parametrize(("row", "reason"), BAD_ROWS, ids=[f"{n}-{reason}" for n, (_, reason) in enumerate(BAD_ROWS)])
def test_a_bad_row_is_told_by_its_reason(row: Any, reason: str) -> None:
    with pytest.raises(BadRowError) as error:
        read_row(row, PLACE)
    assert str(error.value) == reason


COLUMNS = ["prompt", "chosen", "rejected", "messages", "completion", "label", "split", "id"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "value"]) | st.text(), inner, max_size=3)
    ),
    max_leaves=8,
)


@example({"prompt": "0", "split": []})
@given(st.dictionaries(st.sampled_from(COLUMNS), JSON))
def test_no_row_whatever_ends_in_anything_but_a_row_or_a_reason(row: dict[str, Any]) -> None:
    try:
        found = read_row(row, PLACE)
    except BadRowError as error:
        event(str(error))
        return
    text = found.text if isinstance(found, Prompt) else found.prompt
    assert text
    text.encode()


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("test_prefs.parquet", "held_out"),
        ("data/validation-00000-of-00001.parquet", "held_out"),
        ("held_out_pairs.jsonl", "held_out"),
        ("train_sft.parquet", "train"),
        ("default/train/0000.parquet", "train"),
        ("contest.jsonl", ""),
        ("pairs.jsonl", ""),
    ],
)
def test_a_files_name_tells_its_split(name: str, word: str) -> None:
    assert split_word(name) == word


@pytest.mark.parametrize(
    ("said", "split"), [("test", "held_out"), ("train", "dpo"), ("held_out", "held_out"), ("sft", "sft"), (7, "dpo")]
)
def test_a_split_column_comes_before_the_files_name(said: Any, split: str) -> None:
    row = read_row(PAIRS["strings"] | {"split": said}, Place("f:1", "train"))
    assert row.split == split
