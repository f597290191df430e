"""What a running stage knows about itself right now, as figures for programs and as one short line for people."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile

WINDOW_S = 30.0
"""Age of the progress the ETA is taken from, in seconds: old speed says little about what is left."""


@dataclass(frozen=True)
class Live:
    """The engine at one moment."""

    in_flight: int = 0
    """Requests sent and not answered."""
    limit: int = 0
    """Most requests in flight at this moment, as far as the endpoint's own limit is known."""
    throttled: int = 0
    """429s so far."""
    retried: int = 0
    """Attempts sent again so far after anything but a 429."""
    failed: int = 0
    """Items given up so far."""
    replies: int = 0
    """Replies received by this process."""
    journalled: int = 0
    """Replies taken from the journal by this process."""
    tokens_per_s: float = 0.0
    """Reply tokens of received replies per second, over the last 10 s or so."""
    prompt_tokens: int = 0
    """Tokens in of all replies so far, journalled ones too."""
    reply_tokens: int = 0
    """Tokens out of all replies so far, journalled ones too."""
    spent_usd: float | None = None
    """Money spent so far, in US dollars; None where no price is known, 0 where nothing is charged."""
    left_usd: float | None = None
    """What the budget leaves, in US dollars; None without a cap."""
    left_tokens: int | None = None
    """What the budget leaves, in tokens; None without a cap."""
    paused_s: float = 0.0
    """Seconds until sending goes on, 0 where it is not paused."""

    def line(self) -> str:
        """One short line; a zero that says nothing is left out."""
        parts = [
            f"{self.in_flight} in flight of {self.limit}" if self.in_flight else "",
            f"paused for {duration(max(1.0, self.paused_s))}" if self.paused_s > 0 else "",
            f"{self.throttled}×429" if self.throttled else "",  # noqa: RUF001
            f"{self.retried} retried" if self.retried else "",
            f"{self.failed} failed" if self.failed else "",
            f"{self.journalled} from the journal" if self.journalled else "",
            f"{self.tokens_per_s:.0f} tokens/s" if self.tokens_per_s >= 0.5 else "",
            self._money(),
            f"{max(0, self.left_tokens)} tokens left" if self.left_tokens is not None else "",
        ]
        return " · ".join(filter(None, parts))

    def _money(self) -> str:
        if self.spent_usd is None:
            return "cost unknown"
        if self.left_usd is not None:
            return f"{usd(self.spent_usd)} spent, {usd(max(0.0, self.left_usd))} left"
        return f"{usd(self.spent_usd)} spent" if self.spent_usd else "$0"


@dataclass(frozen=True)
class Training:
    """A trainer after one optimizer step."""

    loss: float
    """Training loss of that step."""
    tokens_per_s: float | None = None
    """Tokens of the rows themselves, prompts included and padding not, per second of recent steps."""
    mfu: float | None = None
    """Share of the device's peak that the model's own arithmetic reaches; None where the peak is not known."""
    gpu_memory_bytes: int | None = None
    """Most GPU memory allocated at once so far; None on a CPU."""

    def line(self) -> str:
        """One short line; what is not known is left out."""
        parts = [
            f"loss {self.loss:.4f}",
            f"{self.tokens_per_s:,.0f} tokens/s" if self.tokens_per_s is not None else "",
            f"MFU {self.mfu:.1%}" if self.mfu is not None else "",
            f"{self.gpu_memory_bytes / 2**30:.1f} GiB" if self.gpu_memory_bytes is not None else "",
        ]
        return " · ".join(filter(None, parts))


def usd(amount: float) -> str:
    """Money in words: cents, and more digits where cents would hide it."""
    if amount == 0:
        return "$0"
    return f"${amount:.2f}" if amount >= 0.1 else f"${max(amount, 0.0001):.4f}"


def duration(seconds: float) -> str:
    """A length of time in words, such as `85 s`, `12 min`, `3 h 20 min` or `4 days`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 2880 else f"{minutes // 1440} days"


@dataclass
class RecentRate:
    """Amount per second over the last `window_s` seconds; `add` is cheap enough for every reply."""

    window_s: int = 10
    clock: Callable[[], float] = time.monotonic
    _seconds: deque[tuple[int, int]] = field(default_factory=deque)
    _begun: float | None = None

    def add(self, amount: int) -> None:
        """Count an amount at this moment."""
        now = self.clock()
        if self._begun is None:
            self._begun = now
        if self._seconds and self._seconds[-1][0] == int(now):
            amount += self._seconds.pop()[1]
        self._seconds.append((int(now), amount))
        self._forget(now)

    def per_s(self) -> float:
        """The rate; over the time since the first `add` where that is shorter than the window."""
        now = self.clock()
        self._forget(now)
        since = now - self._begun if self._begun is not None else 0.0
        return sum(amount for _, amount in self._seconds) / min(self.window_s, max(1.0, since))

    def _forget(self, now: float) -> None:
        while self._seconds and self._seconds[0][0] <= now - self.window_s:
            self._seconds.popleft()


@dataclass(frozen=True)
class _Span:
    end: float
    length_s: float
    done: int
    replayed: bool
    """Mostly journalled replies, which come a thousand times faster than the network's."""


@dataclass
class Eta:
    """Seconds to the end of one step, from its recent speed.

    A replay of the journal tells nothing about the network, so its seconds count only while it lasts. A step that
    stands still longer than usual moves the end away.
    """

    _spans: deque[_Span] = field(default_factory=deque)
    _last: tuple[float, int, int, int] | None = None
    """Time, done, received and journalled replies at the end of the last span."""

    def seconds(self, now: float, done: int, total: int, live: Live | None = None) -> int | None:
        """Take note of the state at `now` (monotonic seconds) and tell what is left; None where it is not known."""
        replies, journalled = (live.replies, live.journalled) if live else (0, 0)
        if self._last is None or done < self._last[1]:  # the first look, or the step began anew
            self._spans.clear()
            self._last = (now, done, replies, journalled)
        since, before, replies_before, journalled_before = self._last
        if done > before and now - since >= 1.0:
            replayed = journalled - journalled_before > replies - replies_before
            self._spans.append(_Span(now, now - since, done - before, replayed))
            self._last = (now, done, replies, journalled)
        while len(self._spans) > 1 and self._spans[0].end < now - WINDOW_S:
            self._spans.popleft()
        rate = self._rate(now)
        return round((total - done) / rate) if rate and done < total else None

    def _rate(self, now: float) -> float | None:
        if self._spans and self._spans[-1].replayed and self._spans[-1].end == now:
            spans = list(takewhile(lambda span: span.replayed, reversed(self._spans)))
        else:
            spans = [span for span in self._spans if not span.replayed]
        if not spans:
            return None
        length_s = sum(span.length_s for span in spans)
        still_s = now - spans[-1].end if spans[-1].end <= now else 0.0
        usual_s = length_s / len(spans)
        return sum(span.done for span in spans) / (length_s + max(0.0, still_s - usual_s))
