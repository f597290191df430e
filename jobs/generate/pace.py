"""The gate in front of one endpoint: whose turn it is, and when.

    ticket = await pace.enter(tokens)         # waits for its turn
    pace.replied(ticket, used_tokens=90, reply_tokens=41, headers=headers)   # or .throttled(...), .failed(...)

`limit.py` says how many may be in flight, `quota.py` how many in a minute. After a 429 only the refused request waits
for its Retry-After; all others do when nothing is accepted any more, however few they are.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from jobs.generate.limit import Limit
from jobs.generate.quota import Bucket, Quota

DRAIN_S, LOOK_S = 30.0, 0.05
"""Replies that are paid for and on their way are waited for so long at the end, with so much time between two looks."""
CUTS_TO_PAUSE = 3
"""After so many cuts within one Retry-After, the limit is no matter of how many are in flight."""


@dataclass(frozen=True)
class Ticket:
    """A request that may be sent now."""

    number: int
    """How many were sent up to and with this one."""
    tokens: int
    """Tokens it was expected to take."""
    tokens_sent: int
    """Expected tokens of all requests up to and with this one."""
    at: float
    """When it was let through, by the monotonic clock."""
    replies_before: int
    """Replies that had come by then."""


@dataclass
class Pace:
    """The gate; give it a Limit with the recipe's ceiling."""

    limit: Limit
    buckets: tuple[Bucket, Bucket] = (Bucket(None), Bucket(None))
    """Requests and tokens allowed in a minute, where the recipe says so."""
    in_flight: int = 0
    throttled_count: int = 0
    """429s so far."""
    _cuts: int = 0
    """Cuts since the last time in which no Retry-After ran."""
    _refused_until: float = 0.0
    _pause_until: float = 0.0
    _replies: int = 0
    _sent: int = 0
    _tokens_sent: int = 0
    _quota: Quota = field(default_factory=Quota)
    _waiting: deque[tuple[int, asyncio.Future[Ticket]]] = field(default_factory=deque)
    _timer: asyncio.TimerHandle | None = None
    _closed: bool = False

    async def enter(self, tokens: int) -> Ticket:
        """Wait for the turn of a request that is expected to take so many tokens, in and out."""
        now = time.monotonic()
        if not self._waiting and self._wait_s(tokens, now) == 0:
            return self._let_through(tokens, now)
        turn: asyncio.Future[Ticket] = asyncio.get_running_loop().create_future()
        self._waiting.append((tokens, turn))
        self._admit()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._leave()
            raise

    def replied(self, ticket: Ticket, used_tokens: int, reply_tokens: int, headers: Mapping[str, str]) -> None:
        """A reply came: learn from it and let the next ones through."""
        now = time.monotonic()
        self._quota.read(headers, ticket.number, ticket.tokens_sent, now)
        self.buckets[1].give_back(ticket.tokens - used_tokens)
        self._replies += 1
        binding = bool(self._waiting) and self.in_flight >= int(self.limit.value)
        self.limit.replied(now - ticket.at, reply_tokens, now, binding=binding)
        self._leave()

    def throttled(self, ticket: Ticket, retry_after_s: float, headers: Mapping[str, str]) -> None:
        """A 429 came: `retry_after_s` is what this request will wait."""
        now = time.monotonic()
        self.throttled_count += 1
        self._quota.read(headers, ticket.number, ticket.tokens_sent, now)
        self.in_flight -= 1
        if self.limit.refused(ticket.number, self._sent, self.in_flight, now):
            self._cuts = self._cuts + 1 if now < self._refused_until else 1
        self._refused_until = max(self._refused_until, now + retry_after_s)
        if self.in_flight == 0 or self._cuts >= CUTS_TO_PAUSE:
            self._pause_until = max(self._pause_until, now + retry_after_s)
        self._admit()

    def failed(self, ticket: Ticket, *, timeout: bool) -> None:
        """No reply came, for another reason than a 429."""
        if timeout:
            self.limit.timed_out(ticket.number, self._sent, self._replies - ticket.replies_before)
        self._leave()

    def paused_s(self) -> float:
        """Seconds until anything may be sent again."""
        return max(0.0, self._pause_until - time.monotonic())

    def close(self) -> None:
        """Let nothing through any more; what is in flight may still come back."""
        self._closed = True

    async def drain(self, error: Exception | None = None) -> None:
        """Let nothing through any more and wait for what is in flight, for DRAIN_S at most.

        Args:
            error: raised afterwards for everybody who still waits.
        """
        self.close()
        end = time.monotonic() + DRAIN_S
        while self.in_flight and time.monotonic() < end:
            await asyncio.sleep(LOOK_S)
        while error and self._waiting:
            _, turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(error)

    def _leave(self) -> None:
        self.in_flight -= 1
        self._admit()

    def _let_through(self, tokens: int, now: float) -> Ticket:
        self.in_flight += 1
        self._sent += 1
        self._tokens_sent += tokens
        self.limit.sent(self._sent, self.in_flight, now)
        self.buckets[0].take(1, now)
        self.buckets[1].take(tokens, now)
        return Ticket(self._sent, tokens, self._tokens_sent, now, self._replies)

    def _wait_s(self, tokens: int, now: float) -> float:
        """Seconds until a request may go; infinite where only another one's end can tell."""
        limit_s = self.limit.wait_s(self.in_flight, now)
        if self._closed or limit_s == float("inf"):
            return float("inf")
        quota_s = self._quota.wait_s(self._sent + 1, self._tokens_sent + tokens, now)
        bucket_s = max(self.buckets[0].wait_s(1, now), self.buckets[1].wait_s(tokens, now))
        return max(0.0, self._pause_until - now, limit_s, quota_s, bucket_s)

    def _admit(self) -> None:
        now = time.monotonic()
        while self._waiting:
            tokens, turn = self._waiting[0]
            if turn.done():  # its task was cancelled
                self._waiting.popleft()
                continue
            wait_s = self._wait_s(tokens, now)
            if wait_s > 0:
                self._later(wait_s)
                return
            self._waiting.popleft()
            turn.set_result(self._let_through(tokens, now))

    def _later(self, wait_s: float) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        if wait_s != float("inf"):
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._admit)
