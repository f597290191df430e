"""Asking until a reply can be used: a rejected one is asked again under the next sample index, a few times."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from jobs.generate.filters import Drop
from jobs.generate.replies import Rejected, Text, read_text
from jobs.generate.requests import ChatRequest
from jobs.generate.teacher import RefusedError, Teacher

Result = TypeVar("Result")

TRIES = 4
"""Sample indices tried for one text."""

FAULTY_TRIES = 3
"""Sample indices tried for a text that can be read but would be dropped; the last one stands, and is dropped with its
reason."""


async def ask_text(
    teacher: Teacher, request: ChatRequest, fault: Callable[[str], Drop | None] = lambda _: None
) -> Text:
    """A usable text for a request.

    Args:
        teacher: who is asked.
        request: what is asked, at sample index 0.
        fault: why a text would be dropped later, or None.

    Raises:
        RefusedError: the endpoint refuses the request, or no try gave a usable text; holds the reason of the last one.
        UnavailableError: the endpoint cannot be used at all.
    """
    rejected = Rejected("empty", "never asked")
    for sample_index in range(TRIES):
        reply = await teacher.ask(replace(request, sample_index=sample_index))
        found = read_text(reply, request.schema, trim=teacher.endpoint.is_embedded)
        if isinstance(found, Rejected):
            rejected = found
        elif sample_index + 1 >= FAULTY_TRIES or not fault(found.text):
            return found
    raise RefusedError(rejected.reason, f"{TRIES} replies, none usable; the last: {rejected.detail}")


async def together(work: list[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Run everything at once and keep the order; the first error cancels the rest and is raised by itself."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
