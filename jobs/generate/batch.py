"""`teacher.mode: batch`: requests are collected, sent as OpenAI batches at their discount, and waited for.

    async with open_desk(sender, max_attempts, busy) as desk:
        reply = await desk.ask(request, without)     # Reply; None: ask live

Every chain waits at this desk at once, so a step of all chains is one batch. Only requests that failed or expired are
sent again, in the next batch, and live after a few of those. A batch outlives this process: the journal knows who waits
in it, and its metadata say so where the journal could not be told any more (decision 010).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from jobs.common.console import say
from jobs.common.errors import StoppedError
from jobs.generate.batch_lines import Asked, Line
from jobs.generate.batch_post import LEAST_LINES, Post
from jobs.generate.batch_restart import in_words, pick_up
from jobs.generate.faults import FaultError
from jobs.generate.journal import Reply
from jobs.generate.requests import ChatRequest
from jobs.generate.sender import Sender
from jobs.generate.tokens import most_prompt_tokens

QUIET_S = 1.0
"""A batch is sent when no request has come for so long: what is to come then waits for a reply first."""
MOST_ALIKE = 2
"""So often a request may expire, or be in a batch that is not taken, before it is asked live."""


@dataclass
class Desk:
    """Where requests wait for batches; `open_desk` makes it."""

    post: Post
    max_attempts: int
    busy: Callable[[], bool]
    """Are replies on their way that will bring more requests?"""
    _queued: asyncio.Event = field(default_factory=asyncio.Event)
    _queued_at: float = 0.0
    """When the last request came, by the event loop's clock."""

    async def ask(self, form: ChatRequest, without: frozenset[str]) -> Reply | None:
        """The reply from a batch; None where the request should be asked live.

        Raises:
            FaultError: the endpoint refuses the request, or a parameter of it.
            UnavailableError: the endpoint is down or refuses the key.
            StoppedError: the budget leaves no room for it.
        """
        failed: Counter[str] = Counter()
        line = self._earlier(form)
        while line or not self.post.is_live:
            outcome = await (line or await self._enqueue(form, without)).outcome
            if outcome is None or isinstance(outcome, Reply):
                return outcome
            if outcome.kind not in {"retry", "throttled"}:
                raise FaultError(outcome)
            line = None
            self.post.sender.meter.retried += 1
            failed[outcome.reason] += 1
            counted = failed.total() - failed["crowded"]
            if counted >= self.max_attempts or max(failed["expired"], failed["rejected"]) >= MOST_ALIKE:
                break
        return None

    @property
    def figures(self) -> str:
        """What waits where, for people."""
        queue, watches = self.post.queue, self.post.watches.values()
        parts = [f"{len(queue)} wait for the next batch"] if queue else []
        if watches:
            done, total = sum(one.done for one in watches), sum(one.total for one in watches)
            next_s = max(0.0, min(one.next_look_at for one in watches) - asyncio.get_running_loop().time())
            parts.append(f"{in_words(len(watches))}, {done} of {total} lines done, next look in {next_s:.0f} s")
        return ", ".join(parts)

    async def work(self) -> None:
        """Send what has been collected, again and again."""
        post = self.post
        while True:
            await self._collect()
            left = len(post.queue)
            if left < LEAST_LINES:
                post.ask_live(post.queue)
                post.queue = []
                continue
            while left > 0 and post.queue:
                while post.one_by_one and post.watches:
                    await asyncio.sleep(QUIET_S / 10)
                batches = -(-left // post.most_lines)
                left -= await post.send(-(-left // batches))  # of one size, so that none is small

    def _earlier(self, form: ChatRequest) -> Line | None:
        """The line of an earlier process's batch that asks the same."""
        forms = [form]
        if form.schema and self.post.api.endpoint.structured == "auto":  # it may have been asked without
            forms.append(replace(form, schema=None))
        for one in forms:
            if line := self.post.earlier.pop((self.post.sender.key(one), one.max_tokens), None):
                line.is_awaited = True
                return line
        return None

    async def _enqueue(self, form: ChatRequest, without: frozenset[str]) -> Line:
        post, sender = self.post, self.post.sender
        prompt_tokens = most_prompt_tokens(form.turns, form.schema)
        try:
            worst = await sender.budget.reserve(sender.meter.tariff.cost(prompt_tokens, form.max_tokens, batch=True))
        except StoppedError as error:
            raise post.broken or error from None
        line = Line(sender.key(form), form.max_tokens, worst, form.choices, Asked(form, without, prompt_tokens))
        if post.broken:
            raise post.broken
        if post.is_live:
            post.ask_live([line])
            return line
        post.queue.append(line)
        self._queued_at = asyncio.get_running_loop().time()
        self._queued.set()
        return line

    async def _collect(self) -> None:
        """Wait until it is time for a batch."""
        loop = asyncio.get_running_loop()
        self._queued.clear()
        if not self.post.queue:
            await self._queued.wait()
        while loop.time() < self._queued_at + QUIET_S or self.busy():
            await asyncio.sleep(QUIET_S / 10)


@asynccontextmanager
async def open_desk(sender: Sender, max_attempts: int, busy: Callable[[], bool]) -> AsyncIterator[Desk]:
    """Open the desk, with the batches of earlier processes picked up; they go on when it closes.

    Raises:
        UnavailableError: there are such batches and the endpoint is down or refuses.
    """
    from jobs.generate.teacher import connect_batches  # late, because importing openai takes a second

    async with connect_batches(sender.client.endpoint) as api:
        post = Post(sender, api)
        try:
            await pick_up(post)
        except FaultError as error:
            raise post.unavailable(error.fault) from None
        desk = Desk(post, max_attempts, busy)
        post.run(desk.work())
        try:
            yield desk
        finally:
            waiting = len(post.watches)
            post.close()
            if waiting:
                say(f"{in_words(waiting)} at {api.endpoint.shown} go on; the same command picks them up")
