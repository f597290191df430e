"""Rare and expensive: refusals on a redo, a lost key with replies on their way, no usage, odd letters."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobs.generate.attempts import Attempts
from jobs.generate.faults import Fault, classify
from jobs.generate.replies import read_prompts
from tests.fakes.openai_server import Answer, plausible
from tests.generate.test_faults import journalled
from tests.generate.world import World


def test_a_redo_ends_well_where_only_requests_refused_for_good_are_left(world: World) -> None:
    refused: set[str] = set()

    def touchy(body: dict[str, Any]) -> str | Answer:
        chat = body["messages"]
        if len(chat) == 3 and (len(refused) < 4 or chat[0]["content"] in refused):
            refused.add(chat[0]["content"])
            return Answer(status=400, error={"message": "This text is not for me."})
        return plausible(body)

    world.server.respond = touchy
    assert world.generate() == 0
    assert len(world.rows("failures.jsonl")) == 4
    world.server.history.clear()
    assert world.generate("--redo") == 0
    assert len(world.server.history) == 4
    assert len(world.rows("failures.jsonl")) == 4


@pytest.mark.parametrize(
    ("status", "message", "reason"),
    [
        (400, "Invalid prompt: it was flagged as potentially violating our usage policy", "content_policy"),
        (402, "Insufficient balance", "no_credit"),
        (400, "Your credit balance is too low to access the API", "no_credit"),
        (429, "Request too large for gpt-4o on tokens per min (TPM)", "too_long"),
        (301, "", "moved"),
        (400, "Your message asks me to plant a seed of doubt", "bad_request"),
    ],
)
def test_errors_are_judged_by_what_they_say(status: int, message: str, reason: str) -> None:
    content = json.dumps({"error": {"message": message}}).encode()
    fault = classify(status, {}, content, model="m", key_name="OPENAI_API_KEY")
    assert (fault.reason, fault.parameter) == (reason, "")


def test_when_the_key_is_refused_replies_on_their_way_are_still_kept(world: World) -> None:
    asked: list[None] = []

    def last_one_refused(body: dict[str, Any]) -> Answer:
        asked.append(None)
        if len(asked) == 6:
            return Answer(status=401, error={"message": "revoked"})
        return Answer(delay_s=0.5)

    world.server.respond = last_one_refused
    assert world.generate() == 69
    assert journalled(world) == 5


def test_an_endpoint_that_counts_no_tokens_is_counted_at_its_worst_case(world: World) -> None:
    def without_usage(body: dict[str, Any]) -> Answer:
        message = {"role": "assistant", "content": plausible(body)}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return Answer(body=json.dumps({"model": body["model"], "choices": choices}).encode())

    world.server.respond = without_usage
    assert world.sets("budget_tokens=20000") == 75
    assert len(world.server.history) < 20


@pytest.mark.parametrize("text", ['{"prompts": ["How do I \\ud83d hide the old car from them?"]}'])
def test_half_a_letter_in_a_prompt_breaks_no_file(text: str) -> None:
    from jobs.generate.journal import Reply

    reply = Reply(text=text, finish_reason="stop", prompt_tokens=1, reply_tokens=1, model="m")
    [prompt] = read_prompts(reply, 1)
    assert prompt.encode() == b"How do I ? hide the old car from them?"


def test_a_request_refused_a_thousand_times_still_waits_no_longer_than_the_longest_backoff() -> None:
    attempts = Attempts(most=6, throttled=5000)
    assert 0 < attempts.delay_s(Fault("throttled", "busy", "throttled", 429), others_replied=True) <= 30
