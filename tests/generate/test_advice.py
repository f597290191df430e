from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobs.common.jsonl import read_records
from jobs.common.recipe import key_paths
from jobs.common.records import Failure
from jobs.common.settings import Recipe
from jobs.generate.advice import ADVICE, LENGTHS, advise, verbose_line

REASONS = (
    "content_policy", "too_long", "bad_request", "truncated", "empty", "garbage",
    "throttled", "unavailable", "timeout", "malformed", "something_new",
)  # fmt: skip


def keys(text: str) -> set[str]:
    return set(re.findall(r"\b(?:teacher|initial|generate|student)\.[a-z_.]*[a-z_]", text))


@pytest.mark.parametrize("step", LENGTHS)
@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_has_one_line_of_advice_that_names_keys_the_recipe_has(reason: str, step: str) -> None:
    for status in (None, 200, 400, 429, 503):
        advice = advise(reason, status, step)
        assert advice.endswith(".")
        assert "\n" not in advice
        assert "{" not in advice
        assert keys(advice) <= set(key_paths(Recipe))


def test_advice_is_known_for_exactly_these_reasons() -> None:
    assert set(ADVICE) == set(REASONS) - {"something_new"}


@pytest.mark.parametrize(
    ("reason", "status", "step", "named"),
    [
        ("truncated", 200, "critique", {"generate.critique_tokens", "teacher.model"}),
        ("truncated", 200, "initial", {"generate.response_tokens", "initial.model"}),
        ("timeout", None, "prompts", {"teacher.timeout_s", "teacher.concurrency", "generate.prompt_tokens"}),
        ("unavailable", 503, "revision", {"teacher.max_attempts", "teacher.concurrency"}),
        ("unavailable", None, "revision", set()),
    ],
)
def test_advice_names_the_key_of_the_step(reason: str, status: int | None, step: str, named: set[str]) -> None:
    assert keys(advise(reason, status, step)) == named


def test_a_failed_item_is_one_printable_line() -> None:
    failure = Failure(
        id="ubuntu-0123456789",
        principle_id="ubuntu",
        step="critique",
        reason="bad_request",
        detail="HTTP 400: \x1b[2Jkey sk-abcdef0123456789\n" + "very long " * 40,
        status=400,
        advice="Do this.",
    )
    line = verbose_line(failure)
    assert line.startswith("ubuntu-0123456789: critique bad_request (HTTP 400): HTTP 400: ")
    assert line.endswith(" → Do this.")
    assert line.isprintable()
    assert "sk-abcdef" not in line
    assert len(line) < 220


def test_failures_of_earlier_versions_still_read(tmp_path: Path) -> None:
    old = '{"id": "a-1", "principle_id": "a", "step": "initial", "reason": "empty", "detail": "no text"}\n'
    (tmp_path / "failures.jsonl").write_text(old)
    (read,) = read_records(tmp_path / "failures.jsonl", Failure)
    assert (read.request, read.status, read.body, read.advice) == ({}, None, "", "")
    assert verbose_line(read) == "a-1: initial empty: no text"
