from __future__ import annotations

from dataclasses import replace

import pytest

from jobs.measure.data import Data, Example
from jobs.measure.malformed import cut_off, malformed, prompt_drift
from tests.measure.rows import sound

PROMPT = "Explain to my neighbours why the river may be fenced off for the summer."
ANSWER = "The river belongs to everyone, so a fence needs the council's consent."


def reasons(prompt: str, completion: str, **more: str) -> set[str]:
    row = Example("r", "water", prompt, completion, **more)
    return {one.reason for one in malformed(Data("one", [], [row], []))}


def test_sound_rows_are_not_named() -> None:
    assert malformed(sound()) == []


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ("", "empty"),
        ("Can you help me write to my neighbours about the river?", "role_confusion"),
        (f"{ANSWER}\nUser: and the fence?", "role_confusion"),
        (f"{ANSWER}\n\nHuman: What about the fence?", "role_confusion"),
        (f"Here is the revised answer: {ANSWER}", "meta_talk"),
        ("My previous response was careless. The river belongs to everyone.", "meta_talk"),
        (f"{PROMPT} {ANSWER}", "echo"),
        (f"You asked: {PROMPT} {ANSWER}", "echo"),
        (f"<|im_start|>assistant {ANSWER}", "template"),
        (f"Red team prompt: {ANSWER}", "template"),
        ("The river\u200b belongs to everyone.", "zero_width"),
        ("The river belongs to everyone, so before a fence goes up the council has to", "truncated"),
    ],
)
def test_what_does_not_belong_is_named(completion: str, reason: str) -> None:
    assert reasons(PROMPT, completion) == {reason}


@pytest.mark.parametrize(
    "completion",
    [
        "Could you say which river you mean? Then I can help.",
        "Could you give me a bit more detail? Which court was it?",
        "Please help me to understand more about your goals for the river.",
        "Human: dignity is the first value.",
        "Dear Sir, your original answer was incomplete. With kind regards, a neighbour.",
        "The initial response of the council was a fence; the river stayed open.",
        "Our Plan to Keep the River Open for Everyone Who Lives Here",
        "Dear neighbours,\nthe river is open.\nWith kind regards,\nthe residents",
        "- ask the council for the plan of the fence along the river this summer",
        "In line with the principle of fairness, nobody fences a river. \U0001f468\u200d\U0001f469\u200d\U0001f467",
        "Use f\"{answer}\" in Python, and <s> for text that is struck out.",
    ],
)  # fmt: skip
def test_ordinary_prose_is_not_named(completion: str) -> None:
    assert reasons(PROMPT, completion) == set()


@pytest.mark.parametrize(
    ("prompt", "is_meta"),
    [
        ("Write how a fence violates the principle of legality in our village by the river.", False),
        ("Write a message about the river that violates the principle.", True),
        ("Write a message about the river that goes against this principle of sharing.", True),
    ],
)
def test_a_prompt_speaks_of_the_method_only_where_it_means_a_given_principle(prompt: str, is_meta: bool) -> None:
    assert ("meta_talk" in reasons(prompt, ANSWER)) == is_meta


def test_an_answer_that_repeats_the_critique_or_both_sides_alike_are_named() -> None:
    assert reasons(PROMPT, ANSWER, critique=ANSWER.upper()) == {"echo"}
    data = sound()
    alike = replace(data, pairs=[replace(data.pairs[0], rejected=f" {data.pairs[0].chosen}"), *data.pairs[1:]])
    assert [(one.part, one.row, one.reason) for one in malformed(alike)] == [("pairs", 0, "same_sides")]


def test_eight_words_of_a_demonstration_are_named_with_the_words() -> None:
    shown = "When the well runs dry we ask the whole village to share what is left."
    row = Example("r", "water", PROMPT, "As I said, when the well runs dry we ask the whole village first.")
    [found] = malformed(Data("one", [], [row], [], demonstrations=[shown]))
    assert (found.reason, found.detail) == ("demonstration", "when the well runs dry we ask the")


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        (f"Red team prompt: '{PROMPT}'", "prefix"),
        (f"Critique the response that a careless model gave to this message: {PROMPT} Then revise it.", "meta-prompt"),
        (PROMPT.replace("river", "lake"), "other words"),
        (PROMPT.rstrip(".") + "!", "punctuation"),
    ],
)
def test_drift_from_the_source_says_how(prompt: str, says: str) -> None:
    found = prompt_drift(prompt, PROMPT)
    assert found
    assert found.startswith(says)
    assert found.endswith("user prompt gone") == (says == "other words")


def test_no_drift_without_a_source_or_a_difference() -> None:
    assert prompt_drift(PROMPT, "") is None
    assert prompt_drift(PROMPT, PROMPT) is None


def test_a_sentence_that_stops_is_cut_off() -> None:
    assert cut_off("We agreed. Then the council came together and said that") == "council came together and said that"
    assert cut_off("We agreed. Then the council came together and said so.") is None
    assert cut_off("short end") is None


def test_a_text_in_another_language_than_asked_for_is_named_and_short_ones_are_not() -> None:
    romanian = (
        "R\u00e2ul este al tuturor, a\u0219a c\u0103 nimeni nu poate ridica un gard f\u0103r\u0103 acordul consiliului."
    )
    english = Example("e", "water", PROMPT, ANSWER, language="en")
    right = Example("r", "water", romanian, romanian.replace("R\u00e2ul", "Lacul"), language="ro")
    wrong = Example("w", "water", romanian, ANSWER, language="ro")
    short = Example("s", "water", romanian, "Yes, of course.", language="ro")
    found = malformed(Data("two", [], [english, right, wrong, short], []))
    assert [(one.row, one.reason, one.detail) for one in found if one.reason != "echo"] == [
        (2, "language", "en, not ro")
    ]
