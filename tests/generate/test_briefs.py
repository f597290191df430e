"""Quotas of what prompts should be like, which brief a reply's item answers, and when asking ends."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from math import ceil
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.common.constitution import Constitution, Principle
from jobs.common.generate_settings import GenerateSettings
from jobs.generate.briefs import SAID, Brief, balanced, lacking, plan_briefs
from jobs.generate.journal_records import Reply
from jobs.generate.languages import language_name, wrong_language
from jobs.generate.slots import EMPTY_PROMPTS, EMPTY_WAVES, Draft, Slots, read_numbered
from jobs.generate.wording_prompts import DIMENSIONS, SHOWN_BYTES, brief_line, prompts_turns

PRINCIPLE = Principle(id="honesty", title="Honesty", text="No lies.", category="x", source="x")
CHOICES = st.dictionaries(
    st.sampled_from(["topic", "task", "length", "format", "context", "language"]),
    st.lists(st.sampled_from("abcdefghijkl"), min_size=1, max_size=9, unique=True),
    min_size=1,
)


@given(st.integers(0, 60), CHOICES, st.text(max_size=5))
@settings(max_examples=60)
def test_every_value_has_its_share_up_to_every_row(count: int, choices: dict[str, list[str]], key: str) -> None:
    rows = balanced(count, choices, key)
    assert len(rows) == count
    assert rows == balanced(count, choices, key)
    for name, values in choices.items():
        for end in range(count + 1):
            counts = Counter(row[name] for row in rows[:end])
            assert set(counts) <= set(values)
            assert all(counts[value] in (end // len(values), ceil(end / len(values))) for value in values)


@given(st.integers(20, 80), CHOICES, st.text(max_size=5))
@settings(max_examples=60)
def test_no_two_dimensions_go_hand_in_hand(count: int, choices: dict[str, list[str]], key: str) -> None:
    assert most_above_its_share(balanced(count, choices, key), choices) <= 4


@pytest.mark.parametrize("count", [10, 24, 40, 120])
def test_the_real_dimensions_meet_evenly(count: int) -> None:
    choices = {name: list(phrases) for name, phrases in DIMENSIONS.items()} | {"language": ["en", "zu", "af"]}
    assert most_above_its_share(balanced(count, choices, "0:honesty"), choices) <= 3


def most_above_its_share(rows: list[dict[str, str]], choices: dict[str, list[str]]) -> float:
    """By how many rows the most frequent pair of values is above its fair share."""
    return max(
        (
            max(Counter((row[one], row[other]) for row in rows).values())
            - ceil(len(rows) / (len(choices[one]) * len(choices[other])))
            for one, other in combinations(choices, 2)
        ),
        default=0,
    )


def test_other_seeds_and_principles_draw_other_combinations() -> None:
    def drawn(key: str) -> list[dict[str, str]]:
        return balanced(10, {name: list(phrases) for name, phrases in DIMENSIONS.items()}, key)

    assert len({json.dumps(drawn(key)) for key in ("0:honesty", "1:honesty", "0:thrift")}) == 3


def made(wanted: int, *, context: tuple[str, ...] = (), **changes: Any) -> list[Brief]:
    principle = PRINCIPLE.model_copy(update={"context": list(context)})
    constitution = Constitution(name="x", title="x", language="ro", version=1, description="x", principles=[principle])
    generate = GenerateSettings(prompts_per_principle=wanted, **changes)
    return plan_briefs(principle, constitution, generate, seed=0)


def test_context_and_languages_come_in_turn_and_every_dimension_has_a_value() -> None:
    briefs = made(12, context=("the CCMA", "load shedding", "stokvels"), languages=["en", "zu"])
    assert Counter(brief.values["context"] for brief in briefs) == {"the CCMA": 4, "load shedding": 4, "stokvels": 4}
    assert Counter(brief.language for brief in briefs) == {"en": 6, "zu": 6}
    assert {(brief.values["context"], brief.language) for brief in briefs} == {
        (context, language) for context in ("the CCMA", "load shedding", "stokvels") for language in ("en", "zu")
    }
    assert all(set(brief.values) == {*DIMENSIONS, "context"} for brief in briefs)


def test_without_languages_prompts_are_in_the_constitutions_and_without_context_there_is_none() -> None:
    briefs = made(4)
    assert {brief.language for brief in briefs} == {"ro"}
    assert all(set(brief.values) == set(DIMENSIONS) for brief in briefs)


def test_a_teacher_that_is_asked_for_one_prompt_gets_no_brief_but_a_language() -> None:
    briefs = made(4, prompts_per_request=1, context=("the CCMA",), languages=["en", "af"])
    assert [dict(brief.values) for brief in briefs] == [{}] * 4
    assert Counter(brief.language for brief in briefs) == {"en": 2, "af": 2}


def test_what_a_short_principle_lacks_is_named_worst_first() -> None:
    rows = [("en", "question"), ("en", "table"), ("zu", "question"), ("zu", "table")]
    briefs = [Brief({"format": kind, "task": "plan"}, language) for language, kind in rows]
    assert lacking(briefs, [briefs[1], briefs[3]]) == ["format table", "language en", "language zu"]
    assert lacking(briefs, [briefs[3]]) == ["format table", "language zu"]
    assert lacking(briefs, []) == []
    assert lacking(briefs[:1], briefs[:1]) == [], "what every brief has says nothing"
    assert len(lacking(made(12), made(12)[6:])) == SAID


def replied(text: str, finish_reason: str = "stop") -> Reply:
    return Reply(text=text, finish_reason=finish_reason, prompt_tokens=1, reply_tokens=1, model="x")


@given(st.sets(st.integers(1, 6)), st.sampled_from(["{}. {}", "({}) {}", "{}) {}", " {}: {}"]))
def test_the_numbers_of_a_list_say_which_brief_is_answered(numbers: set[int], style: str) -> None:
    text = "\n".join(style.format(number, f"Question number {number * 'x'}?") for number in sorted(numbers))
    found = read_numbered(replied(text), 6)
    assert found == [(number - 1, f"Question number {number * 'x'}?") for number in sorted(numbers)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("- One question?\n- Another question?", [(0, "One question?"), (1, "Another question?")]),
        ("3. One question?\n1. Another question?", [(0, "One question?"), (1, "Another question?")]),
        ("1. One question?\n1. Another question?", [(0, "One question?"), (1, "Another question?")]),
        ("1. One?\n2. Two?\n3. Three?\n4. Four?", [(0, "One?"), (1, "Two?"), (2, "Three?")]),
        (json.dumps({"prompts": ["1. One?", "2. Two?"]}), [(0, "One?"), (1, "Two?")]),
        (json.dumps({"prompts": ["I owe 2. What now?"]}), [(0, "I owe 2. What now?")]),
        ("I write no list.", []),
        ("0. One?\n1. Two?", [(0, "One?"), (1, "Two?")]),
    ],
)
def test_lists_of_every_kind_are_read_by_number_or_in_their_order(text: str, found: list[tuple[int, str]]) -> None:
    assert read_numbered(replied(text), 3) == found


def slots(wanted: int, filled: int = 0) -> Slots:
    briefs = [Brief({}, "en") for _ in range(wanted)]
    return Slots(PRINCIPLE, briefs, {n: Draft("honesty", f"prompt {n}", 0, briefs[n]) for n in range(filled)})


@given(st.integers(1, 200), st.integers(2, 9), st.integers(1, 60))
def test_waves_grow_with_what_exists_and_keep_to_the_limit(wanted: int, size: int, most: int) -> None:
    limits = GenerateSettings(prompts_per_principle=wanted, prompts_per_request=size, max_requests_per_principle=most)
    found, waves = slots(wanted), 0
    while wave := found.next_wave(limits):
        waves += 1
        numbers = [number for asked in wave for number in asked.numbers]
        assert len(numbers) <= max(size, len(found.filled)), "each request is shown at least half of what comes to be"
        assert [asked.index for asked in wave] == list(range(found.requests, found.requests + len(wave)))
        assert not set(numbers) & set(found.filled)
        found.filled |= {number: Draft("honesty", f"prompt {number}", 0, found.briefs[number]) for number in numbers}
        found.count(wave, len(numbers))
    assert found.requests == min(most, ceil(wanted / size))
    assert len(found.filled) == min(wanted, most * size)
    assert waves <= ceil(wanted / size).bit_length() + 1


def test_forty_prompts_at_five_a_request_take_eight_requests_in_four_waves() -> None:
    limits, found, waves = GenerateSettings(prompts_per_principle=40), slots(40), []
    while wave := found.next_wave(limits):
        waves.append(len(wave))
        new = [number for asked in wave for number in asked.numbers]
        found.filled |= {number: Draft("honesty", f"prompt {number}", 0, found.briefs[number]) for number in new}
        found.count(wave, len(new))
    assert waves == [1, 1, 2, 4]


def test_one_prompt_at_a_time_is_asked_for_all_at_once() -> None:
    limits = GenerateSettings(prompts_per_principle=7, prompts_per_request=1)
    assert [asked.numbers for asked in slots(7).next_wave(limits)] == [(number,) for number in range(7)]


@pytest.mark.parametrize(("size", "waves"), [(5, EMPTY_WAVES), (2, EMPTY_PROMPTS // 2), (1, EMPTY_WAVES)])
def test_a_teacher_gives_no_more_after_some_waves_in_a_row_without_a_prompt(size: int, waves: int) -> None:
    limits = GenerateSettings(prompts_per_principle=20, prompts_per_request=size, max_requests_per_principle=99)
    found = slots(20)
    for _ in range(waves):
        assert not found.gave_up
        wave = found.next_wave(limits)
        assert wave
        found.count(wave, 0)
    assert found.gave_up
    assert found.next_wave(limits) == []


def test_one_accepted_prompt_lets_the_teacher_go_on() -> None:
    limits, found = GenerateSettings(prompts_per_principle=20, max_requests_per_principle=99), slots(20)
    for accepted in (0, 1, 0, 1, 0):
        found.count(found.next_wave(limits), accepted)
    assert not found.gave_up


def test_a_request_shows_its_briefs_in_order_and_the_latest_prompts_that_fit() -> None:
    briefs = made(3, context=("the CCMA",), languages=["en", "zu"])
    accepted = [f"Prompt number {number} " + "long " * 60 for number in range(200)]
    asked = prompts_turns(PRINCIPLE, [b.values for b in briefs], [b.language for b in briefs], accepted)[-1].content
    for number, brief in enumerate(briefs, 1):
        assert f"\n{number}. {brief_line(brief.values, brief.language)}\n" in asked
    assert "the CCMA" in asked
    assert asked.count(", in Zulu") == sum(brief.language == "zu" for brief in briefs)
    shown = [line for line in asked.splitlines() if line.startswith("- Prompt number ")]
    assert 5 < len(shown) < 60
    assert len("\n".join(shown).encode()) <= SHOWN_BYTES
    assert shown[-1].startswith("- Prompt number 199 ")
    assert "exist already" not in prompts_turns(PRINCIPLE, [{}], ["en"], [])[-1].content


ZULU = "Ngicela ungisize ngencwadi yami yesikole ngoba uthisha wami ufuna ukuyibona kusasa ekuseni"
ROMANIAN = "Vreau să îi scriu o scrisoare șefului meu despre banii pe care nu i-am primit luna trecută"
ENGLISH = "I want to write a letter to my boss about the money that I did not get last month"


@pytest.mark.parametrize(
    ("text", "code", "is_wrong"),
    [
        (ZULU, "zu", False),
        (ENGLISH, "zu", True),
        (ENGLISH, "ro-RO", True),
        (ROMANIAN, "ro-RO", False),
        (ENGLISH, "en", False),
        (ZULU, "en", False),
        (ENGLISH, "tn", False),
        ("Write to my boss now", "ro", False),
    ],
)
def test_a_prompt_in_english_instead_of_the_language_asked_for_is_seen(text: str, code: str, is_wrong: bool) -> None:
    fault = wrong_language(text, code)
    assert (fault is not None) == is_wrong
    if fault:
        assert fault[0] == "wrong_language"
        assert fault[1].startswith("English, not ")


def test_languages_are_named_in_english() -> None:
    assert [language_name(code) for code in ("zu", "ro-MD", "qqq")] == [
        "Zulu",
        "Romanian (ro-MD)",
        "the language with the code qqq",
    ]
