"""What the user can do about a request that was given up: one line for failures.jsonl and for `--verbose`."""

from __future__ import annotations

from jobs.common.records import Failure
from jobs.generate.faults import one_line

LENGTHS = {
    "prompts": "generate.prompt_tokens",
    "twins": "generate.prompt_tokens",
    "initial": "generate.response_tokens",
    "critique": "generate.critique_tokens",
    "revision": "generate.response_tokens",
    "rewrite": "generate.response_tokens",
    "edit": "generate.response_tokens",
    "judge": "generate.response_tokens",
    "grade": "generate.response_tokens",
}
"""Step → the recipe key of its longest reply; of a judge's, of what it reads."""

ADVICE = {
    "content_policy": "The endpoint's filter refused this text: leave it out, or set {model} to a model without such "
    "a filter.",
    "too_long": "The conversation does not fit the model's context: lower {length} or generate.few_shot, or set "
    "{model} to one with a longer context.",
    "bad_request": "The endpoint refuses this request as it stands: read body and request in failures.jsonl, then "
    "check {model} and teacher.structured.",
    "truncated": "The reply hit its limit: raise {length}, or set {model} to one that writes shorter.",
    "empty": "The model answered without text: a reasoning model may need more {length}; or set {model} to another.",
    "garbage": "The reply could not be read: lower {temperature}, set teacher.structured to off, or set {model} to a "
    "stronger one.",
    "unavailable": "The endpoint failed every attempt: run again later, raise teacher.max_attempts, or lower "
    "teacher.concurrency.",
    "throttled": "The endpoint's rate limit held to the last attempt: set teacher.requests_per_minute and "
    "teacher.tokens_per_minute to its limits, or raise teacher.max_attempts.",
    "timeout": "No answer in time: raise teacher.timeout_s, or lower teacher.concurrency or {length}.",
    "malformed": "The answer is no chat completion: check that the base URL leads to an OpenAI-compatible API, not to "
    "a web page or a gateway's error.",
}
"""Reason → advice; {length}, {model} and {temperature} become the keys of the step."""


def advise(reason: str, status: int | None, step: str) -> str:
    """One line that tells what can be done.

    Args:
        reason: a key of `ADVICE`; any other one gets the advice of `bad_request`.
        status: HTTP status of the last answer, None where there was none.
        step: a key of `LENGTHS`.
    """
    if reason == "unavailable" and status is None:
        return "No connection: check the base URL and the network, then run again."
    section = "initial" if step == "initial" else "teacher"
    writer = "judge" if step in {"judge", "grade"} else section
    advice = ADVICE.get(reason, ADVICE["bad_request"])
    return advice.format(length=LENGTHS[step], model=f"{writer}.model", temperature=f"{section}.temperature")


def verbose_line(failure: Failure) -> str:
    """One log line about a failed item, safe to print whatever the endpoint sent."""
    status = f" (HTTP {failure.status})" if failure.status else ""
    detail = "".join(letter if letter.isprintable() else "?" for letter in one_line(failure.detail, 120))
    return f"{failure.id}: {failure.step} {failure.reason}{status}: {detail} → {failure.advice}".rstrip(" →")
