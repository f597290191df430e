"""Rates: what an endpoint's x-ratelimit headers leave to send, and limits per minute that the recipe names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from jobs.generate.attempts import LONGEST_RETRY_AFTER_S

_PART = re.compile(r"([\d.]+)(ms|s|m|h|d)?")
_UNIT_S = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass
class Quota:
    """What the endpoint said is left, of requests and of tokens.

    A header speaks of the moment its request was counted. So a request numbered n that left r more allows numbers up to
    n + r, until the time at which the endpoint counts anew.
    """

    _allowed: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Of requests and of tokens: the highest number allowed, and until when that holds."""
    _read_of: int = 0

    def read(self, headers: Mapping[str, str], number: int, tokens_sent: int, now: float) -> None:
        """Take in the headers of the answer to request `number`, up to which `tokens_sent` had been sent."""
        if number < self._read_of or "x-ratelimit-remaining-requests" not in headers:
            return
        self._read_of = number
        for name, sent in (("requests", number), ("tokens", tokens_sent)):
            remaining = headers.get(f"x-ratelimit-remaining-{name}", "")
            reset_s = duration_s(headers.get(f"x-ratelimit-reset-{name}", ""))
            self._allowed.pop(name, None)
            if remaining.isdecimal() and 0 < reset_s <= LONGEST_RETRY_AFTER_S:  # a longer one: its 429 ends the stage
                self._allowed[name] = (sent + int(remaining), now + reset_s)

    def wait_s(self, number: int, tokens_sent: int, now: float) -> float:
        """Seconds until request `number`, with `tokens_sent` up to and with it, may go."""
        wait_s = 0.0
        for name, count in (("requests", number), ("tokens", tokens_sent)):
            most, until = self._allowed.get(name, (count, 0.0))
            if count > most:
                wait_s = max(wait_s, until - now)
        return wait_s


@dataclass
class Bucket:
    """A limit per minute, spread evenly (token bucket that holds one second's share); None limits nothing."""

    per_minute: int | None
    _level: float = field(default=1.0)
    """Share of a second's allowance that is there; below zero after a large request."""
    _at: float = 0.0

    def wait_s(self, count: int, now: float) -> float:
        """Seconds until the next request may go; it needs a full second's share, or its own count where smaller."""
        if self.per_minute is None:
            return 0.0
        self._refill(now)
        per_s = self.per_minute / 60
        return max(0.0, (min(count, max(1.0, per_s)) - self._level) / per_s)

    def take(self, count: int, now: float) -> None:
        """Count what is sent now."""
        if self.per_minute is not None:
            self._refill(now)
            self._level -= count

    def give_back(self, count: int) -> None:
        """Correct an expectation: so many were not used (negative: used beside)."""
        if self.per_minute is not None:
            self._level += count

    def _refill(self, now: float) -> None:
        per_s = self.per_minute / 60 if self.per_minute else 0.0
        self._level = min(max(1.0, per_s), self._level + (now - self._at) * per_s)
        self._at = now


def duration_s(text: str) -> float:
    """Seconds of a duration as OpenAI writes it (`6m0s`, `120ms`), or as a plain number; 0 where it is neither."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        return 0.0
    try:
        return float(sum(float(number) * _UNIT_S[unit] for number, unit in parts))
    except ValueError:
        return 0.0
