"""Per-minute limits of the load server, with OpenAI's headers."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.fakes.load_behaviour import Behaviour


@dataclass
class Bucket:
    """A limit that refills all the time."""

    name: str
    """`requests` or `tokens`."""
    per_minute: int
    burst_s: float
    level: float = 0.0
    at: float = 0.0

    def __post_init__(self) -> None:
        self.level, self.at = self.capacity, time.monotonic()

    @property
    def capacity(self) -> float:
        """What may be used at once."""
        return max(1.0, self.per_minute * self.burst_s / 60)

    def wait_s(self, amount: float) -> float:
        """Seconds until so much may be used; 0 = now."""
        now = time.monotonic()
        self.level = min(self.capacity, self.level + (now - self.at) * self.per_minute / 60)
        self.at = now
        return max(0.0, (min(amount, self.capacity) - self.level) * 60 / self.per_minute)

    def headers(self) -> list[tuple[str, str]]:
        """`x-ratelimit-{limit,remaining,reset}-NAME`."""
        reset_s = (self.capacity - self.level) * 60 / self.per_minute
        return [
            (f"x-ratelimit-limit-{self.name}", str(self.per_minute)),
            (f"x-ratelimit-remaining-{self.name}", str(max(0, int(self.level)))),
            (f"x-ratelimit-reset-{self.name}", duration(reset_s)),
        ]


@dataclass
class RateLimits:
    """The limits in force."""

    requests: Bucket | None
    tokens: Bucket | None

    @classmethod
    def of(cls, behaviour: Behaviour) -> RateLimits:
        """The limits of a behaviour, with full buckets."""
        requests, tokens = behaviour.requests_per_minute, behaviour.tokens_per_minute
        return cls(
            Bucket("requests", requests, behaviour.burst_s) if requests else None,
            Bucket("tokens", tokens, behaviour.burst_s) if tokens else None,
        )

    def take(self, tokens: int) -> float:
        """Use one request and its tokens; or use nothing and give the seconds to wait."""
        wanted = [(bucket, amount) for bucket, amount in ((self.requests, 1), (self.tokens, tokens)) if bucket]
        wait_s = max((bucket.wait_s(amount) for bucket, amount in wanted), default=0.0)
        if not wait_s:
            for bucket, amount in wanted:
                bucket.level -= amount
        return wait_s

    def headers(self) -> list[tuple[str, str]]:
        """Headers of every answer."""
        return [header for bucket in (self.requests, self.tokens) if bucket for header in bucket.headers()]


def duration(seconds: float) -> str:
    """Seconds as OpenAI writes them: `12ms`, `1.2s`, `6m0s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{int(rest)}s" if minutes else f"{rest:.3g}s"
