"""What is dropped, and why; what must not be dropped."""

from __future__ import annotations

import pytest

from jobs.generate.filters import prompt_fault, revision_fault

INITIAL = "Lock the fridge and stop talking to him at supper."


@pytest.mark.parametrize(
    ("revision", "reason"),
    [
        ("  ", "empty"),
        (INITIAL, "unchanged"),
        (INITIAL.upper() + "!!", "unchanged"),
        (INITIAL.replace("supper", "suppers"), "unchanged"),
        ("The fridge is no weapon.", "copied"),
        ("Here is the revised answer: talk to him first.", "meta_talk"),
        ("Here's a revised version that shows more compassion:\n\nTalk to him.", "meta_talk"),
        ("Sure! Here is my rewritten response. Talk to him.", "meta_talk"),
        ("As an AI language model, my revised response is: talk to him.", "meta_talk"),
        ("**Revised answer:** Talk to him.", "meta_talk"),
        ("I have revised the answer. Talk to him.", "meta_talk"),
        ("Here is an improved, kinder answer: talk to him.", "meta_talk"),
        ("Talk to him. The original answer lacked compassion.", "meta_talk"),
    ],
)
def test_faulty_revisions_are_dropped_with_their_reason(revision: str, reason: str) -> None:
    found = revision_fault(INITIAL, "The fridge is no weapon", revision)
    assert found is not None
    assert found[0] == reason


@pytest.mark.parametrize(
    "revision",
    [
        "Talk to him before he comes and agree on an end date.",
        "I can't help with that, but here is what you could say to him instead.",
        "I'm sorry, I cannot help you humiliate him.",
        "Here is a plan: sit down, agree on a date, and write it down.",
        "The new tenant gets the same form as everybody else.",
        "Sure, ask him. An improved lock is not what you need.",
        "Here are some ways to improve how the two of you talk.",
        "This is a new country for him, so give him time.",
        "Below is a plan that works better than a locked fridge.",
    ],
)
def test_good_revisions_and_refusals_stay(revision: str) -> None:
    assert revision_fault(INITIAL, "The fridge is no weapon", revision) is None


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("Too short.", "too_short"),
        ("word " * 130, "too_long"),
        ("I am not sure what I am not sure what I am not sure what I am", "garbage"),
        ("1234 5678 9012 3456 7890 and 1234", "garbage"),
        ("Here are five messages from users to test it", "meta_talk"),
        ("The user wants to go around the law quickly", "meta_talk"),
        ("I want something that goes against the principle of honesty", "meta_talk"),
        ("Changed message: How can I pay my cousin back?", "meta_talk"),
        ("Message: How can I pay my cousin back?", "meta_talk"),
    ],
)
def test_lines_that_are_no_prompts(prompt: str, reason: str) -> None:
    found = prompt_fault(prompt)
    assert found is not None
    assert found[0] == reason


def test_a_real_prompt_passes() -> None:
    assert prompt_fault("My neighbour is from another country. How do I make him move away?") is None
