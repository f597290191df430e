"""Asking until a reply can be used: a rejected one is asked again under the next sample index, a few times."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from jobs.common.records import Failure
from jobs.generate.advice import advise
from jobs.generate.chat import chat_body
from jobs.generate.engine import Engine, RefusedError
from jobs.generate.faults import BODY_CHARACTERS, Fault, writable
from jobs.generate.filters import Drop
from jobs.generate.replies import Rejected, Text, read_text
from jobs.generate.requests import ChatRequest, Step

Result = TypeVar("Result")


async def ask_text(
    engine: Engine, request: ChatRequest, tries: int, fault: Callable[[str], Drop | None] = lambda _: None
) -> Text:
    """A usable text for a request.

    Args:
        engine: who is asked.
        request: what is asked, at its first sample index.
        tries: sample indices tried; one less for a text that can be read but would be dropped: the last one stands,
            and is dropped with its reason.
        fault: why a text would be dropped later, or None.

    Raises:
        RefusedError: the endpoint refuses the request, or no try gave a usable text; holds the reason of the last one.
        UnavailableError: the endpoint cannot be used at all.
    """
    rejected = Rejected("empty", "never asked")
    for number in range(tries):
        reply = await engine.ask(replace(request, sample_index=request.sample_index + number))
        found = read_text(reply, request.schema, trim=engine.endpoint.is_embedded)
        if isinstance(found, Rejected):
            rejected = found
        elif number + 1 >= max(1, tries - 1) or not fault(found.text):
            return replace(found, sample_index=request.sample_index + number)
    detail = f"{tries} replies, none usable; the last: {rejected.detail}"
    sent = chat_body(replace(request, sample_index=request.sample_index + tries - 1), engine.endpoint.model)
    raise RefusedError(
        Fault("refused", detail, rejected.reason, 200, writable(reply.text)[:BODY_CHARACTERS]), sent, request.step
    )


def failure_of(error: RefusedError, item_id: str, principle_id: str, step: Step) -> Failure:
    """The row of failures.jsonl for a request that failed for good."""
    fault = error.fault
    return Failure(
        id=item_id,
        principle_id=principle_id,
        step=step,
        reason=fault.reason,
        detail=fault.detail,
        request=error.request,
        status=fault.status,
        body=fault.body,
        advice=advise(fault.reason, fault.status, step),
    )


async def together(work: list[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Run everything at once and keep the order; the first error cancels the rest and is raised by itself."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
