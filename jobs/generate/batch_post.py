"""Batches on their way: sent, watched, and every line settled in journal and budget; used by `batch.py`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jobs.common.console import say
from jobs.common.errors import UnavailableError
from jobs.generate.batch_lines import Line, Outcome, encode, marker, missing, rejected
from jobs.generate.batch_watch import NO_BATCH_API, Watch, create, may_pass, patiently
from jobs.generate.budget import Cost
from jobs.generate.chat import chat_body
from jobs.generate.faults import Fault, FaultError, one_line
from jobs.generate.journal import Reply
from jobs.generate.sender import Sender

if TYPE_CHECKING:
    from jobs.generate.teacher import Batch, BatchApi

LEAST_LINES = 10
"""Fewer requests are asked live: a day's wait for three of them helps nobody."""
MOST_LINES, MOST_BYTES = 20_000, 50_000_000
"""Of one batch, for the sake of memory; OpenAI takes 50,000 lines and 200 MB. As many chains wait at once."""
CROWDED = "token_limit"
"""In the code of a batch that is not taken because too much waits at the endpoint already: `token_limit_exceeded`."""


@dataclass
class Post:
    """The batches of one endpoint."""

    sender: Sender
    api: BatchApi
    queue: list[Line] = field(default_factory=list)
    """Requests for the next batch."""
    watches: dict[str, Watch] = field(default_factory=dict)
    """Batches at the endpoint, by id."""
    earlier: dict[tuple[str, int], Line] = field(default_factory=dict)
    """Requests that an earlier process sent and nobody has asked for yet, by key and token limit."""
    most_lines: int = MOST_LINES
    """Of the next batch; less after one that was not taken."""
    one_by_one: bool = False
    """Is a batch sent only when the last one has ended?"""
    is_live: bool = False
    """Has the endpoint no Batch API?"""
    broken: Exception | None = None
    """Why nothing goes on."""
    _sending: list[Line] = field(default_factory=list)
    """Requests neither in the queue any more nor in a batch yet."""
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def send(self, most: int) -> int:
        """Send at most so many requests of the queue as one batch and watch it; gives how many."""
        since, (lines, data) = time.time(), self._take(most)
        ids = [line.id for line in lines]
        try:
            file_id = await patiently(lambda: self.api.upload(data))
        except FaultError as error:
            self._not_taken(lines, error.fault)
            return len(lines)
        try:
            batch = await create(self.api, file_id, marker(self.sender.run.name, ids), since)
        except FaultError as error:
            if may_pass(error):  # nobody knows whether there is a batch: the next process looks for it
                self.stop_for(self.unavailable(error.fault))
            else:
                self._not_taken(lines, error.fault)
            return len(lines)
        self.sender.journal.batch_created(batch.id, ids)
        self._sending = []
        self.watch(batch.id, lines)
        return len(lines)

    def watch(self, batch_id: str, lines: Iterable[Line]) -> None:
        """Wait for a batch in the background."""
        watch = self.watches[batch_id] = Watch(batch_id, {line.id: line for line in lines})
        self.run(self._see_through(watch))

    def run(self, work: Coroutine[None, None, None]) -> None:
        """Do something in the background; its failure ends the run."""

        async def guarded() -> None:
            try:
                await work
            except FaultError as error:
                self.stop_for(self.unavailable(error.fault))
            except Exception as error:  # raised again where somebody waits for a reply
                self.stop_for(error)

        task = asyncio.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Watch no longer; the batches go on at the endpoint."""
        for task in list(self._tasks):
            task.cancel()

    def ask_live(self, lines: Iterable[Line]) -> None:
        """Have these requests asked live."""
        for line in lines:
            self.sender.budget.settle(line.worst, Cost())
            line.resolve(None)

    def settle(self, line: Line, outcome: Outcome) -> None:
        """Write what became of a request that was sent."""
        sender, used = self.sender, Cost()
        if isinstance(outcome, Reply):
            used = sender.meter.tariff.cost(outcome.prompt_tokens, outcome.reply_tokens, batch=True)
            if not line.is_awaited and sender.journal.get(line.key):
                sender.too_long.add(line.key)
            sender.keep(line.id, line.key, line.max_tokens, outcome)
            if line.is_awaited:  # else it counts as journalled once it is asked for
                sender.meter.add(outcome)
        elif outcome.charged:
            used = line.worst
            sender.journal.lose(line.id, outcome.reason)
        else:
            sender.journal.release(line.id)
        self.earlier.pop((line.key, line.max_tokens), None)
        sender.budget.settle(line.worst, used)
        line.resolve(outcome)

    def _take(self, most: int) -> tuple[list[Line], bytes]:
        """Requests of the queue with their intent lines written, and their input file."""
        data, model, count = bytearray(), self.api.endpoint.model, 0
        for line in self.queue[:most]:
            assert line.asked
            form = line.asked.form
            line.id = self.sender.begin(form, line.asked.prompt_tokens, batch=True)
            data += encode(line.id, chat_body(form, model, line.asked.without))
            count += 1
            if len(data) > MOST_BYTES:
                break
        self._sending, self.queue = self.queue[:count], self.queue[count:]
        return self._sending, bytes(data)

    async def _see_through(self, watch: Watch) -> None:
        batch = await watch.until_over(self.api)
        if batch is None:
            say(f"{self.api.endpoint.shown} does not know batch {watch.batch_id} any more; asking its requests again")
            watch.give_up(missing(), self.settle)
        elif batch.status == "failed":
            self._rejected(watch, batch)
        else:
            await watch.read(self.api, batch, self.settle)
        del self.watches[watch.batch_id]

    def _rejected(self, watch: Watch, batch: Batch) -> None:
        errors = batch.errors.data if batch.errors and batch.errors.data else []
        said = one_line("; ".join(f"{error.code}: {error.message}" for error in errors[:3]) or "no reason given")
        self._refused(list(watch.lines.values()), said)

    def _refused(self, lines: list[Line], said: str) -> None:
        self.one_by_one, self.most_lines = True, max(LEAST_LINES, min(self.most_lines, len(lines)) // 2)
        say(f"{self.api.endpoint.shown} does not take a batch of {len(lines)} requests: {said}")
        may_fit = CROWDED in said and len(lines) > LEAST_LINES
        for line in lines:
            self.settle(line, Fault("retry", said, "crowded") if may_fit else rejected(said))

    def _not_taken(self, lines: list[Line], fault: Fault) -> None:
        """A batch was not made, for sure."""
        if fault.kind in {"refused", "parameter"} and fault.status not in NO_BATCH_API:
            self._refused(lines, fault.detail)
            return
        for line in lines:
            self.sender.journal.release(line.id)
        if fault.status in NO_BATCH_API:
            say(f"{self.api.endpoint.shown} has no Batch API (HTTP {fault.status}); asking live, at the full price")
            self.is_live = True
            self.ask_live([*lines, *self.queue])
            self.queue.clear()
            return
        self.stop_for(self.unavailable(fault))

    def unavailable(self, fault: Fault) -> UnavailableError:
        """The error that ends the run."""
        rerun = self.sender.run.rerun
        return UnavailableError(
            f"{self.api.endpoint.shown}: {fault.detail} Then run: {rerun}; every reply so far is journalled."
        )

    def stop_for(self, error: Exception) -> None:
        """End the run: everybody who waits gets this error."""
        self.broken = self.broken or error
        self.close()
        watched = (line for watch in self.watches.values() for line in watch.lines.values())
        waiting = [line for line in (*self.queue, *self._sending, *watched) if not line.outcome.done()]
        for line in waiting:
            line.outcome.set_exception(error)
            line.outcome.exception()  # looked at, or it would be reported as overlooked
        for line in waiting:  # nothing comes back: who waits for the budget must not wait for ever
            self.sender.budget.settle(line.worst, line.worst)
        self.queue.clear()
        self.watches.clear()
