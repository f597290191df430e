"""How many requests may be in flight: additive increase, multiplicative decrease (Chiu and Jain 1989, as in TCP).

With three changes, since an endpoint says more than a router does:

- A 429 comes back within a round trip, long before any reply. So the number in flight doubles from FIRST on, whenever
  the last ones have been on the wire for TRIPS round trips (the time to open a connection), and waits for no reply.
- A 429 names what is too much: what is still in flight was accepted, so the limit falls to that, at most by half.
- A timeout says how much is enough: what the endpoint answered within that time (Little 1961), halved for safety. From
  then on the limit grows only on replies as fast as ever: a server that just queues gets no more than it can work on.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST = 64
"""In flight at the beginning."""
TRIPS = 3
"""Round trips after which a 429 would have come, with some room for a busy machine."""
SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.012, 0.5
"""Bounds of that wait."""
LOOK_S = 0.004
"""Time between two looks while the last requests are not on the wire yet."""
FIRST_HOLD_S, LONGEST_HOLD_S = 2.0, 16.0
"""Time after a 429 in which the limit stays; it doubles with every 429 that follows."""
SLOW = 3.0
"""Replies that take so many times longer per token than the fastest say that the server queues."""
TOKENS_OF_OVERHEAD = 50
"""The time to a first token, counted in tokens, so that short replies do not look slow."""


@dataclass
class Limit:
    """The limit of one endpoint; `most` is the recipe's ceiling. Times are of the monotonic clock, in seconds."""

    most: int
    value: float = 0.0
    round_trip_s: float = float("inf")
    """Shortest time in which a connection was opened."""
    _peak: int = 0
    """Most in flight since the last cut."""
    _step: int = FIRST
    """So many may be in flight until they are known to be accepted."""
    _rise_from: int = 0
    """Requests that must be on the wire before that doubles."""
    _rise_at: float = 0.0
    """When it may: a round trip after they are; LONGEST_WAIT_S after they should be, where they never get there."""
    _wired: int = 0
    _hold_s: float = FIRST_HOLD_S
    _hold_until: float = 0.0
    _cut_at: int = 0
    """Number of the last request sent before the last cut: a fault of an earlier one is no news."""
    _floor: float = 1.0
    """The limit falls no further on news of the same age."""
    _fastest: float = float("inf")

    def __post_init__(self) -> None:
        self.value = float(self.most)

    def wait_s(self, in_flight: int, now: float) -> float:
        """Seconds until one more may be in flight; infinite where another one must end first."""
        if in_flight >= int(self.value):
            return float("inf")
        if in_flight < self._step:
            return 0.0
        if now >= self._rise_at:
            self._step *= 2
            return 0.0
        return min(self._rise_at - now, LOOK_S)  # looked at again soon, as the wire may be slow

    def sent(self, number: int, in_flight: int, now: float) -> None:
        """Request `number` goes out, and so many are in flight."""
        if in_flight > self._peak:
            self._peak = in_flight
            if in_flight == self._step:
                self._rise_from, self._rise_at = number, now + LONGEST_WAIT_S

    def wired(self, now: float) -> None:
        """One more request is on the wire."""
        self._wired += 1
        if self._wired == self._rise_from:
            self._rise_at = min(self._rise_at, now + max(SHORTEST_WAIT_S, TRIPS * self.round_trip_s))

    def replied(self, took_s: float, reply_tokens: int, now: float, *, binding: bool) -> None:
        """A reply came; `binding` says whether the limit is what others wait for."""
        slowness = took_s / (reply_tokens + TOKENS_OF_OVERHEAD)
        self._fastest = min(self._fastest, slowness)
        if binding and now >= self._hold_until and slowness <= SLOW * self._fastest:
            self.value = min(self.value + 1 / self.value, float(self.most))

    def refused(self, number: int, sent: int, in_flight: int, now: float) -> bool:
        """Request `number` of `sent` got a 429 and `in_flight` others did not; is that news?"""
        news = number > self._cut_at
        if news:
            self._floor, self._cut_at = self._peak / 2, sent
            self._hold_until = now + self._hold_s
            self._hold_s = min(LONGEST_HOLD_S, 2 * self._hold_s)
        self.value = max(1.0, self._floor, min(self.value, float(in_flight)))
        self._set_peak()
        return news

    def timed_out(self, number: int, sent: int, replies_meanwhile: int) -> None:
        """Request `number` of `sent` timed out, while so many replies came."""
        enough = max(1.0, replies_meanwhile / 2)
        if number > self._cut_at and enough < self.value:
            self.value, self._cut_at = enough, sent
            self._set_peak()

    def _set_peak(self) -> None:
        self._peak = int(self.value)
        self._step, self._rise_at = max(1, self._peak), 0.0
