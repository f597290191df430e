"""The lines of a batch: what is uploaded, what comes back, and the metadata a batch is found by."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from jobs.generate import faults
from jobs.generate.budget import Cost
from jobs.generate.completion import read_completion
from jobs.generate.endpoint import NO_KEY, Endpoint
from jobs.generate.faults import Fault
from jobs.generate.journal import Reply
from jobs.generate.requests import ChatRequest

UNDONE = {"batch_expired", "batch_cancelled"}
"""Codes of lines that the endpoint did not get to; they cost nothing."""

Outcome = Reply | Fault
"""What became of one line."""


def expired(detail: str) -> Fault:
    """The batch ended before the endpoint got to a line."""
    return Fault("retry", detail, "expired")


def rejected(detail: str) -> Fault:
    """The endpoint did not take a whole batch."""
    return Fault("retry", detail, "rejected")


def missing() -> Fault:
    """A batch has ended and says nothing, or nothing readable, about one of its lines."""
    return Fault("retry", "the batch ended without a readable answer to this request.", "missing", charged=True)


@dataclass(frozen=True)
class Asked:
    """What a line asks."""

    form: ChatRequest
    without: frozenset[str]
    """Parameters the endpoint does not take."""
    prompt_tokens: int
    """Most tokens the request can have."""


@dataclass
class Line:
    """One attempt of one request in a batch, of this process or an earlier one."""

    key: str
    """Key of the request."""
    max_tokens: int
    """Longest reply, in tokens."""
    worst: Cost
    """What is set aside for it."""
    choices: tuple[str, ...] = ()
    """What the reply chooses between."""
    asked: Asked | None = None
    """What is asked; None where an earlier process sent it."""
    id: str = ""
    """Attempt id in the journal and custom_id in the batch; empty until it is sent."""
    is_awaited: bool = True
    """Does somebody wait for it? Not (yet) where an earlier process sent it."""
    outcome: asyncio.Future[Outcome | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """None: ask live."""

    def resolve(self, outcome: Outcome | None) -> None:
        """Tell who waits, unless the run has stopped waiting."""
        if not self.outcome.done():
            self.outcome.set_result(outcome)


def encode(custom_id: str, body: dict[str, Any]) -> bytes:
    """One line of an input file."""
    line = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps(line).encode() + b"\n"


def read(raw: bytes, endpoint: Endpoint, choices: Mapping[str, tuple[str, ...]]) -> tuple[str, Outcome] | None:
    """One line of an output or error file: custom_id and what became of it; None where it cannot be read.

    Args:
        raw: the line.
        endpoint: who wrote it.
        choices: what the replies choose between, by custom_id, where they do.
    """
    try:
        line = json.loads(raw)
        custom_id, answer, error = line["custom_id"], line.get("response"), line.get("error") or {}
        if answer is not None:
            between = choices.get(str(custom_id), ())
            return str(custom_id), _judge(int(answer["status_code"]), answer.get("body"), endpoint, between)
        said = f"{error.get('code')}: {error.get('message')}"
        if error.get("code") in UNDONE:
            return str(custom_id), expired(faults.one_line(said))
        return str(custom_id), Fault("retry", faults.one_line(said), "unavailable")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None


def _judge(status: int, body: Any, endpoint: Endpoint, choices: tuple[str, ...]) -> Outcome:
    content = json.dumps(body).encode()
    if endpoint.key != NO_KEY:  # some endpoints repeat the key they refuse
        content = content.replace(endpoint.key.encode(), b"[key]")
    if status >= 400:
        return faults.classify(status, {}, content, model=endpoint.model, key_name=endpoint.key_name)
    reply = read_completion(body, endpoint.model, choices)
    return replace(reply, batch=True) if reply else faults.malformed(status, content)


def marker(run: str, attempt_ids: Iterable[str]) -> dict[str, str]:
    """Metadata of a batch, from which a later process knows it even where the journal does not."""
    digest = hashlib.sha256(" ".join(sorted(attempt_ids)).encode()).hexdigest()
    return {"cai_run": run[:512], "cai_requests": digest}
