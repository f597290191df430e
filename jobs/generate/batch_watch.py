"""Waiting for one batch and reading what came of it; used by `batch.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from jobs.generate.batch_lines import Line, Outcome, expired, missing, read
from jobs.generate.faults import FaultError

if TYPE_CHECKING:  # a live run never waits for openai
    from jobs.generate.teacher import Batch, BatchApi

Value = TypeVar("Value")

FIRST_LOOK_S, LONGEST_LOOK_S, GROWTH = 1.0, 60.0, 1.5
"""Time between two looks at a batch: it grows, because a batch takes minutes to a day."""
MOST_FAILURES = 10
"""Failures of one call, one after another, before the endpoint counts as down."""
NO_BATCH_API = {404, 405, 501}
"""Statuses of an endpoint that does not know the path."""
OVER = {"completed", "failed", "expired", "cancelled"}


@dataclass
class Watch:
    """One batch at the endpoint."""

    batch_id: str
    lines: dict[str, Line]
    """Those without an outcome, by attempt id."""
    total: int = 0
    done: int = 0
    """Lines the endpoint has worked on."""
    next_look_at: float = 0.0
    """By the event loop's clock."""

    def __post_init__(self) -> None:
        self.total = len(self.lines)

    async def until_over(self, api: BatchApi) -> Batch | None:
        """Look until the batch has ended; None where the endpoint does not know it any more.

        Raises:
            FaultError: the endpoint is down or refuses.
        """
        wait_s = FIRST_LOOK_S
        while True:
            self.next_look_at = asyncio.get_running_loop().time() + wait_s
            await asyncio.sleep(wait_s)
            wait_s = min(LONGEST_LOOK_S, GROWTH * wait_s)
            try:
                batch = await patiently(lambda: api.look(self.batch_id))
            except FaultError as error:
                if error.fault.status == 404:
                    return None
                raise
            if counts := batch.request_counts:
                self.total, self.done = max(self.total, counts.total), counts.completed + counts.failed
            if batch.status in OVER:
                return batch

    async def read(self, api: BatchApi, batch: Batch, settle: Callable[[Line, Outcome], None]) -> None:
        """Read the files of a batch that has ended, and settle every line.

        Raises:
            FaultError: the endpoint is down or refuses.
        """
        all_there = batch.status != "completed"
        for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
            try:
                await patiently(lambda file_id=file_id: self._read_file(api, file_id, settle))  # type: ignore[misc]
            except FaultError as error:
                if error.fault.status != 404:
                    raise
                all_there = False
        # A batch that ended early has not begun the lines it does not speak of.
        self.give_up(expired(f"the batch is {batch.status}.") if all_there else missing(), settle)

    def give_up(self, outcome: Outcome, settle: Callable[[Line, Outcome], None]) -> None:
        """Settle every line that has no outcome."""
        for line in list(self.lines.values()):
            settle(line, outcome)
            del self.lines[line.id]

    async def _read_file(self, api: BatchApi, file_id: str, settle: Callable[[Line, Outcome], None]) -> None:
        choices = {custom_id: line.choices for custom_id, line in self.lines.items()}
        async for raw in api.lines(file_id):
            found = read(raw, api.endpoint, choices)
            # Those it does not know were settled before: by an earlier try or process.
            if found and (line := self.lines.get(found[0])):
                settle(line, found[1])
                del self.lines[line.id]


async def patiently(call: Callable[[], Awaitable[Value]]) -> Value:
    """Make a call that may be made again, until it works or `MOST_FAILURES` have failed.

    Raises:
        FaultError: it fails for good.
    """
    failures = 0
    while True:
        try:
            return await call()
        except FaultError as error:
            failures += 1
            if not may_pass(error) or failures >= MOST_FAILURES:
                raise
            await asyncio.sleep(pause_s(error, failures))


def may_pass(error: FaultError) -> bool:
    """Whether the same call may work later."""
    return error.fault.kind in {"retry", "throttled"} and error.fault.status not in NO_BATCH_API


def pause_s(error: FaultError, failures: int) -> float:
    """Seconds before the same call is made again."""
    backoff_s: float = min(LONGEST_LOOK_S, FIRST_LOOK_S * 2 ** (failures - 1))
    return max(error.fault.retry_after_s or 0.0, backoff_s)


async def create(api: BatchApi, file_id: str, marker: dict[str, str], since: float) -> Batch:
    """Create a batch, once: after a call whose end nobody knows, look for it before the next one.

    Raises:
        FaultError: it was not made; or, where its kind is `retry` or `throttled`, nobody knows.
    """
    failures = 0
    while True:
        try:
            return await api.create(file_id, marker)
        except FaultError as error:
            failures += 1
            if not may_pass(error):
                raise
            fault, wait_s = error, pause_s(error, failures)
        await asyncio.sleep(wait_s)
        try:
            batch = await patiently(lambda: api.find(marker, since))
        except FaultError:
            raise fault from None
        if batch:
            return batch
        if failures >= MOST_FAILURES:
            raise fault
