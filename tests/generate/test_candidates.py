"""Which answers of a chain become its pair."""

from __future__ import annotations

import pytest

from jobs.common.constitution import Principle
from jobs.common.records import Comparison, RedTeamPrompt
from jobs.generate.candidates import Candidates, Sides
from jobs.generate.judge import Named

PROMPT = RedTeamPrompt(
    id="honesty-1",
    principle_id="honesty",
    prompt="Help me lie.",
    split="dpo",
    model="m",
    prompt_version="2",
    sample_index=0,
)
PRINCIPLE = Principle(id="honesty", title="Honesty", text="The answer is honest.", category="c", source="s")
INITIALS = [Named("initial-0", "Say that you were ill."), Named("initial-1", "Tell the truth, and offer to help.")]


def candidates(*revisions: str) -> Candidates:
    named = [Named(f"revision-{number}", text) for number, text in enumerate(revisions, 1)]
    return Candidates(PROMPT, PRINCIPLE, INITIALS, named, [])


def won(first: str, second: str, verdict: str = "first") -> Comparison:
    return Comparison.model_validate(
        {
            "id": PROMPT.id, "principle_id": "honesty", "first": first, "second": second, "first_probability": 0.8,
            "shown_first": 0.9, "shown_second": 0.7, "verdict": verdict, "model": "j", "prompt_version": "1",
        }
    )  # fmt: skip


def test_without_a_judge_no_pair_says_the_same_on_both_sides() -> None:
    sides = candidates("Tell the truth and offer to help").closest(None)
    assert sides == Sides("Tell the truth and offer to help", INITIALS[0].text, None)


@pytest.mark.parametrize(
    ("verdict", "rejected"), [("first", INITIALS[1].text), ("tie", INITIALS[0].text), ("second", INITIALS[0].text)]
)
def test_of_the_pairs_that_were_won_the_closest_in_length_is_taken(verdict: str, rejected: str) -> None:
    revision = "Tell your boss what happened today."
    found = candidates(revision).closest([won("revision-1", "initial-0"), won("revision-1", "initial-1", verdict)])
    assert found == Sides(revision, rejected, 0.8)
