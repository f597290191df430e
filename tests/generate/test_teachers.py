"""The scripted teachers themselves: what a test of repair may trust."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.common.constitution import load_constitution
from jobs.common.records import Kind
from jobs.generate import wording_judge, wording_prompts, wording_rewrite
from jobs.generate.requests import Turn
from jobs.measure.blind import blind
from jobs.measure.data import Data, Pair
from jobs.measure.near import near_pairs
from tests.fakes.teacher_texts import drawn, follows, ways_of, write_answer, write_prompt
from tests.fakes.teachers import HABITS, KINDS, ScriptedTeacher

CONSTITUTION = load_constitution("south_africa")
PRINCIPLE = CONSTITUTION.principles[0]


def asked(turns: tuple[Turn, ...], seed: int = 1) -> dict[str, Any]:
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    return {"model": "fake-teacher", "seed": seed, "messages": messages}


def answers(prompt: str, words: int = 40) -> tuple[str, str]:
    """A good and a bad answer."""
    right, wrong = ways_of(prompt) or ("", "")
    return write_answer(right, words, "good", prompt), write_answer(wrong, words, "bad", prompt)


def test_no_two_prompts_are_near_each_other() -> None:
    assert near_pairs([write_prompt(number) for number in range(400)]) == []


def test_a_classifier_that_never_sees_the_prompt_can_only_guess() -> None:
    pairs = []
    for number in range(300):
        prompt = write_prompt("blind", number)
        good, bad = answers(prompt, int(drawn(number).gauss(45, 6)))
        pairs.append(Pair(str(number), f"principle-{number % 10}", prompt, good, bad))
    found = blind(Data("texts", [], [], pairs))
    assert found
    assert 0.4 < found.by_prompt.value < 0.6


@given(seed=st.integers(), kind=st.sampled_from(KINDS), think=st.booleans())
def test_the_judge_prefers_the_right_way_in_both_orders(seed: int, kind: Kind, think: bool) -> None:
    judge, prompt = ScriptedTeacher(CONSTITUTION), write_prompt(seed)
    good, bad = answers(prompt)
    orders = ((good, bad), (bad, good))
    turns = [wording_judge.compare_turns(PRINCIPLE, prompt, order, kind, think=think) for order in orders]
    assert [judge(asked(one)) for one in turns] == ["A", "B"]


def test_a_position_biased_judge_says_a_to_most_and_grades_one_answer_honestly() -> None:
    judge, said = ScriptedTeacher(CONSTITUTION, "position_biased"), []
    for number in range(200):
        prompt = write_prompt(number)
        good, bad = answers(prompt)
        said.append(judge(asked(wording_judge.compare_turns(PRINCIPLE, prompt, (bad, good), "red_team", think=False))))
        grades = [judge(asked(wording_judge.grade_turns(PRINCIPLE, prompt, one, "red_team"))) for one in (good, bad)]
        assert grades == ["5", "1"]
    assert 0.75 < said.count("A") / 200 < 0.95


@pytest.mark.parametrize("habit", HABITS)
def test_every_teacher_rewrites_to_length_when_asked_but_not_every_time(habit: str) -> None:
    teacher, hits = ScriptedTeacher(CONSTITUTION, habit), 0  # type: ignore[arg-type]
    for number in range(200):
        prompt = write_prompt(number)
        turns = wording_rewrite.length_turns(prompt, answers(prompt, 90)[0], PRINCIPLE, 40, "one two")
        text = teacher(asked(turns, number))
        hits += abs(len(text.split()) - 40) <= 4 and follows(prompt, text) == 1.0
    assert 0.7 < hits / 200 < 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_a_minimal_edit_breaks_the_principle_and_changes_little(kind: Kind) -> None:
    teacher, broken = ScriptedTeacher(CONSTITUTION), 0
    for number in range(100):
        prompt = write_prompt(number)
        good, _ = answers(prompt)
        edited = teacher(asked(wording_rewrite.edit_turns(prompt, good, PRINCIPLE, kind, 40), number))
        assert len(edited.split()) == len(good.split())
        broken += follows(prompt, edited) == 0.0
    assert 70 < broken < 95


def test_the_same_request_always_gets_the_same_reply() -> None:
    prompt = write_prompt("same")
    turns = wording_rewrite.length_turns(prompt, answers(prompt)[0], PRINCIPLE, 30, "")
    assert len({ScriptedTeacher(CONSTITUTION)(asked(turns, 5)) for _ in range(3)}) == 1


def test_a_twin_differs_in_one_word() -> None:
    for number in range(50):
        prompt = write_prompt(number)
        twin = ScriptedTeacher(CONSTITUTION)(asked(wording_prompts.twin_turns(PRINCIPLE, prompt), number))
        changed = [one for one, other in zip(prompt.split(), twin.split(), strict=True) if one != other]
        assert len(changed) == 1
        assert ways_of(twin)
