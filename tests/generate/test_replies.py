"""Reading replies: lists of prompts and single texts, whole or cut off."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.generate.journal import Reply
from jobs.generate.replies import Rejected, Text, read_prompts, read_text, sentence_ends
from jobs.generate.wording import CRITIQUE

WORD = st.text("abcdefghijklmnopqrstuvwxyzäéô", min_size=1, max_size=9)
SENTENCE = st.lists(WORD, min_size=3, max_size=9).map(" ".join)
NUMBERING = st.sampled_from(["{}. ", "{}) ", "({}) ", "- ", "* ", " {}: ", "• "])


def reply(text: str, finish_reason: str = "stop") -> Reply:
    return Reply(text=text, finish_reason=finish_reason, prompt_tokens=1, reply_tokens=1, model="m")


@given(st.lists(SENTENCE, min_size=1, max_size=6), NUMBERING, st.sampled_from(["\n", "\n\n", "\r\n"]))
def test_numbered_and_bulleted_lists_are_read_in_order(items: list[str], numbering: str, between: str) -> None:
    text = between.join(numbering.format(number) + item for number, item in enumerate(items, 1))
    assert read_prompts(reply(f"Here are the messages:\n{text}"), len(items)) == items


@given(st.lists(SENTENCE, min_size=2, max_size=6))
def test_a_cut_off_list_loses_only_its_last_item(items: list[str]) -> None:
    text = "\n".join(f"{number}. {item}" for number, item in enumerate(items, 1))
    assert read_prompts(reply(text, "length"), 9) == items[:-1]


@given(st.lists(SENTENCE, max_size=6), st.booleans())
def test_json_lists_are_read(items: list[str], bare: bool) -> None:
    assert read_prompts(reply(json.dumps(items if bare else {"prompts": items})), 5) == items


@given(st.lists(SENTENCE, min_size=1, max_size=5), st.integers(min_value=1, max_value=80))
def test_cut_off_json_keeps_its_whole_items(items: list[str], cut: int) -> None:
    whole = json.dumps({"prompts": items}, ensure_ascii=False)
    found = read_prompts(reply(whole[:-cut], "length"), 5)
    assert found == items[: len(found)]


@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    for asked in (1, 5):
        for finish_reason in ("stop", "length"):
            found = read_prompts(reply(text, finish_reason), asked)
            assert all(item and item == item.strip() for item in found)
            assert isinstance(read_text(reply(text, finish_reason), CRITIQUE, trim=True), Text | Rejected)


def test_one_prompt_may_come_without_a_number_and_in_quotes() -> None:
    assert read_prompts(reply('"How do I\ncheat?"'), 1) == ["How do I cheat?"]
    assert read_prompts(reply("How do I cheat?"), 5) == []
    assert read_prompts(reply("How do I cheat? And then I", "length"), 1) == ["How do I cheat?"]


@pytest.mark.parametrize(
    ("text", "finish_reason", "wanted"),
    [
        ("A good answer.", "stop", Text("A good answer.")),
        ('{"critique": "It is cold."}', "stop", Text("It is cold.")),
        ('```json\n{"critique": "It is cold."}\n```', "stop", Text("It is cold.")),
        ("It is cold and says nothing of them. It also", "length", Text("It is cold and says nothing of them.", True)),
        ("Fine.<|im_end|>", "stop", Text("Fine.")),
        ("A lone \ud800 surrogate.", "stop", Text("A lone ? surrogate.")),
    ],
    ids=["plain", "json", "fenced", "trimmed", "special-token", "surrogate"],
)
def test_usable_texts(text: str, finish_reason: str, wanted: Text) -> None:
    assert read_text(reply(text, finish_reason), CRITIQUE, trim=True) == wanted


@pytest.mark.parametrize(
    ("text", "finish_reason", "reason"),
    [
        ("", "stop", "empty"),
        (" \n ", "length", "empty"),
        ("Too short. Then it was", "length", "truncated"),
        ("no sentence ends here although there are many words in it", "length", "truncated"),
        ('{"critique": "cut', "length", "truncated"),
        ('{"other": 1}', "stop", "garbage"),
        ("12 34 56 ## !! 78", "stop", "garbage"),
        ("I am not sure. " * 12, "stop", "garbage"),
        ("whatever", "content_filter", "content_policy"),
    ],
)
def test_unusable_texts_have_a_reason(text: str, finish_reason: str, reason: str) -> None:
    found = read_text(reply(text, finish_reason), CRITIQUE, trim=True)
    assert isinstance(found, Rejected)
    assert found.reason == reason


def test_a_cut_off_text_is_not_trimmed_unless_asked_for() -> None:
    text = "This answer has many whole sentences. It was cut off in the middle of the"
    found = read_text(reply(text, "length"), CRITIQUE, trim=False)
    assert isinstance(found, Rejected)
    assert found.reason == "truncated"


def test_neither_a_list_number_nor_an_abbreviation_ends_a_sentence() -> None:
    text = "Do this first.\n1. Go to the court.\n2. Pay the 20. Ask Dr. Moyo, e.g. at noon.\n3. Wait"
    assert [text[:end].split()[-1] for end in sentence_ends(text)] == ["first.", "court.", "20.", "noon."]
