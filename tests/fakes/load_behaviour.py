"""How the load server behaves, and what becomes of one attempt: a seeded hash, so every run repeats."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from tests.fakes.load_replies import Asked

Outcome = Literal[
    "ok",
    "truncated",
    "empty",
    "bad_request",
    "error_500",
    "timeout",
    "dropped",
    "garbage",
    "limited",
    "abandoned",
    "invalid",
]
"""What became of one attempt: `limited` got 429, `abandoned` lost its client first, `invalid` was no request at all."""


@dataclass(frozen=True)
class Behaviour:
    """Latency, limits and faults; shares are of attempts, from 0 to 1."""

    latency_s: float = 0.0
    tail_share: float = 0.0
    """Attempts that take `tail_s` instead of `latency_s`."""
    tail_s: float = 0.0
    limit_in_flight: int | None = None
    """One more gets 429."""
    retry_after_s: float | None = None
    """Retry-After header of those 429s; None sends none."""
    requests_per_minute: int | None = None
    """Refilled all the time; a request too many gets 429. Also sends x-ratelimit-*-requests with every answer."""
    tokens_per_minute: int | None = None
    """As above, counted as prompt tokens + max_tokens."""
    burst_s: float = 60.0
    """Seconds of a per-minute limit that may be used at once."""
    poison: float = 0.0
    """Request bodies that get 400 (content policy) however often they are sent."""
    poison_text: str = ""
    """As above: every body with this text in its last message."""
    bad_request: float = 0.0
    error_500: float = 0.0
    timeout: float = 0.0
    """Never answered."""
    dropped: float = 0.0
    """Connection closed without an answer."""
    garbage: float = 0.0
    """200 with a page of HTML."""
    truncated: float = 0.0
    """200, half the reply, finish_reason length."""
    empty: float = 0.0
    """200, no text."""
    batch_api: bool = True
    """False: /v1/files and /v1/batches are 404."""
    batch_s: float = 0.1
    """Seconds a batch is in progress."""
    batch_failed: float = 0.0
    """Batches that fail validation; the same input file passes the next time."""
    batch_line_failed: float = 0.0
    """Lines that end in the error file with status 500."""
    batch_line_expired: float = 0.0
    """Lines that end in the error file as `batch_expired`; their batch is `expired`."""
    seed: int = 0

    def draw(self, digest: bytes, what: str, number: int = 0) -> float:
        """A number in [0, 1) that is always the same for the same body, purpose and number."""
        text = f"{self.seed}:{what}:{number}:".encode() + digest
        return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big") / 2**56

    def is_poison(self, asked: Asked) -> bool:
        """Is this body refused for ever?"""
        if self.poison_text and self.poison_text in asked.last:
            return True
        return self.draw(asked.digest, "poison") < self.poison

    def fate(self, asked: Asked, seen: int) -> Outcome:
        """What becomes of the attempt after `seen` earlier ones of the same body (429s not counted)."""
        if self.is_poison(asked):
            return "bad_request"
        left = self.draw(asked.digest, "fate", seen)
        shares: tuple[tuple[Outcome, float], ...] = (
            ("bad_request", self.bad_request),
            ("error_500", self.error_500),
            ("timeout", self.timeout),
            ("dropped", self.dropped),
            ("garbage", self.garbage),
            ("truncated", self.truncated),
            ("empty", self.empty),
        )
        for outcome, share in shares:
            if left < share:
                return outcome
            left -= share
        return "ok"

    def delay_s(self, digest: bytes, seen: int) -> float:
        """Seconds until the attempt is answered."""
        return self.tail_s if self.tail_share and self.draw(digest, "tail", seen) < self.tail_share else self.latency_s
