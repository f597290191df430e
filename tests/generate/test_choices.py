"""Probabilities of choices: read from token probabilities or the text, journalled, and never in an old key."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.generate.choices import SURE, WRITTEN, read_choice
from jobs.generate.completion import read_completion
from jobs.generate.journal import Attempt, Reply, open_journal
from jobs.generate.requests import ChatRequest, Sampling, Turn
from jobs.generate.verdict import CLAMP, clamped, mean_in_log_odds, verdict

LETTERS = ("A", "B")
CHANCE = st.floats(0.001, 0.999)


def near(**chances: float) -> Any:
    """Equal to these probabilities, to the last digits."""
    return pytest.approx(chances)


def token(written: str, **chances: float) -> dict[str, Any]:
    spelled = {name if name != written.strip() else written: chance for name, chance in chances.items()}
    listed = [{"token": name, "logprob": math.log(chance)} for name, chance in spelled.items()]
    own = {"token": written, "logprob": math.log(chances.get(written.strip(), 0.5))}
    return own | {"top_logprobs": listed}


def test_the_last_token_that_is_a_choice_decides() -> None:
    content = [token("A", A=0.9, B=0.1), token(" is", A=0.01), token(" B", B=0.7, A=0.3), token(".", A=0.01)]
    found = read_choice("A is B.", {"content": content}, LETTERS)
    assert found == near(A=0.3, B=0.7)


def test_where_no_choice_was_written_the_likeliest_place_is_read() -> None:
    content = [token("The", The=0.5, A=0.2, B=0.1), token(" answer", answer=0.9, B=0.001)]
    found = read_choice("The answer", {"content": content}, LETTERS)
    assert found == near(A=2 / 3, B=1 / 3)


def test_a_choice_that_is_not_listed_gets_what_the_others_leave() -> None:
    content = [{"token": "A", "logprob": math.log(0.8), "top_logprobs": []}]
    assert read_choice("A", {"content": content}, LETTERS) == near(A=0.8, B=0.2)


@pytest.mark.parametrize("logprobs", [None, {}, {"content": None}, {"content": [{"no": 1}]}, {"content": "x"}, 7])
def test_without_readable_logprobs_the_written_choice_counts(logprobs: Any) -> None:
    assert read_choice("I say: B", logprobs, LETTERS) == near(A=1 - WRITTEN, B=WRITTEN)
    assert read_choice("I say nothing about Bread", logprobs, LETTERS) is None


@given(st.dictionaries(st.sampled_from(["A", " A", "B", "B ", "C", "x"]), CHANCE, min_size=1), st.sampled_from("ABx"))
def test_probabilities_sum_to_one_and_are_never_certain(chances: dict[str, float], written: str) -> None:
    found = read_choice(written, {"content": [token(written, **chances)]}, LETTERS)
    if found is not None:
        assert sum(found.values()) == pytest.approx(1)
        assert all(1 - SURE - 1e-9 <= chance <= SURE + 1e-9 for chance in found.values())


def test_the_key_of_a_request_without_choices_is_what_it_always_was() -> None:
    plain = ChatRequest("critique", (Turn("user", "Why?"),), 10, Sampling(0.7, 0.95, 0), "2")
    assert plain.digest == "f123fa512356c6e74bdd4a6a7bf7d6b6fa6726be0cc4b9a3f7281db7d32e0d62"
    chosen = ChatRequest("judge", plain.turns, 10, plain.sampling, "2", choices=LETTERS)
    assert chosen.digest != plain.digest


def test_a_choice_is_in_the_journal_and_in_its_index(tmp_path: Path) -> None:
    key = "ab" * 32
    reply = Reply("A", "stop", 10, 1, "m", choice={"A": 0.75, "B": 0.25})
    attempt = Attempt(key, "run", "host", "m", "judge", 20, 8)
    journal = open_journal(tmp_path)
    journal.settle(journal.begin(attempt), reply)
    assert journal.get(key) == reply
    journal.close()
    again = open_journal(tmp_path)
    assert again.get(key) == reply
    assert again.damaged == 0
    assert again.count() == 1
    again.close()


def test_a_completion_has_a_choice_only_where_one_was_asked_for() -> None:
    body = {"choices": [{"message": {"content": "B"}, "logprobs": {"content": [token("B", B=0.6, A=0.4)]}}]}
    plain, chosen = read_completion(body, "m"), read_completion(body, "m", LETTERS)
    assert plain
    assert plain.choice is None
    assert chosen
    assert chosen.choice == near(A=0.4, B=0.6)


@given(CHANCE, CHANCE)
def test_a_verdict_mirrors_when_the_answers_change_places(first: float, second: float) -> None:
    mirrored = {"first": "second", "second": "first"}
    for rule in ("both_orders", "mean"):
        said = verdict(first, second, rule)
        other = verdict(1 - second, 1 - first, rule)
        assert other == mirrored.get(said, said)


@given(CHANCE, CHANCE)
def test_the_mean_in_log_odds_lies_between_and_forgives_a_slot(first: float, second: float) -> None:
    mean = mean_in_log_odds(first, second)
    assert min(first, second) - 1e-9 <= mean <= max(first, second) + 1e-9
    assert mean_in_log_odds(first, 1 - first) == pytest.approx(0.5)
    assert CLAMP[0] <= clamped(first) <= CLAMP[1]


@pytest.mark.parametrize(
    ("both", "said"),
    [
        ((0.9, 0.6), "first"),
        ((0.4, 0.2), "second"),
        ((0.9, 0.1), "flipped"),
        ((0.54, 0.47), "tie"),
        ((0.9, None), "unreadable"),
    ],
)
def test_both_orders_must_agree(both: tuple[float, float | None], said: str) -> None:
    assert verdict(*both, "both_orders") == said
