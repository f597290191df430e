"""The load server's books: every attempt, what became of it, and what it cost."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.load_replies import Written


@dataclass(frozen=True)
class Stats:
    """The books at one moment; times are `time.monotonic()` seconds, comparable between processes of one machine."""

    attempts: int
    """Chat requests that arrived, over HTTP."""
    outcomes: dict[str, int]
    """Attempts by outcome; those still in flight have none."""
    in_flight: int
    most_in_flight: int
    first_at: float
    """When the first request arrived that was no `invalid` one."""
    last_at: float
    """When the last request arrived."""
    last_reply_at: float
    bodies: int
    """Different bodies that were asked, live or in a batch; bodies that only ever got 429 do not count."""
    repeated: int
    """Attempts beyond the first of their body, 429s not counted."""
    delivered: int
    """Bodies with at least one whole chat completion delivered, live or in a batch's output."""
    delivered_twice: int
    """Bodies with more than one."""
    charged_prompt_tokens: int
    """Tokens of every completion delivered, live."""
    charged_reply_tokens: int
    maybe_prompt_tokens: int
    """Tokens of attempts without a readable answer: timeout, dropped, abandoned, garbage."""
    maybe_reply_tokens: int
    batch_prompt_tokens: int
    """Tokens of every line in a batch's output."""
    batch_reply_tokens: int
    batches: int
    batch_lines: int
    """Lines of all batches that passed validation."""

    @property
    def limited(self) -> int:
        """Attempts answered with 429."""
        return self.outcomes.get("limited", 0)


@dataclass
class Accounts:
    """The books while they are written."""

    attempts: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    most_in_flight: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    last_reply_at: float = 0.0
    seen: Counter[bytes] = field(default_factory=Counter)
    """Attempts by body, 429s not counted."""
    delivered: Counter[bytes] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    batches: int = 0
    batch_lines: int = 0

    def arrive(self) -> None:
        """A chat request came in."""
        self.attempts += 1

    def ask(self) -> None:
        """It was a chat request indeed."""
        self.last_at = time.monotonic()
        self.first_at = self.first_at or self.last_at

    def begin(self, digest: bytes) -> int:
        """A request is worked on; gives how often its body was seen before."""
        before = self.seen[digest]
        self.seen[digest] = before + 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        return before

    def deliver(self, digest: bytes, written: Written, kind: str) -> None:
        """A completion went out; `kind` is `charged` or `batch`."""
        self.delivered[digest] += 1
        self.charge(written, kind)

    def charge(self, written: Written, kind: str) -> None:
        """Count tokens as `charged`, `maybe` or `batch`."""
        self.tokens[f"{kind}_prompt_tokens"] += written.prompt_tokens
        self.tokens[f"{kind}_reply_tokens"] += written.reply_tokens

    def end(self, outcome: str) -> None:
        """A request that began is over."""
        self.in_flight -= 1
        self.outcomes[outcome] += 1
        self.last_reply_at = time.monotonic()

    def stats(self) -> dict[str, Any]:
        """The fields of Stats."""
        kinds = ("charged", "maybe", "batch")
        tokens = {
            name: self.tokens[name] for kind in kinds for name in (f"{kind}_prompt_tokens", f"{kind}_reply_tokens")
        }
        plain = (
            "attempts",
            "in_flight",
            "most_in_flight",
            "first_at",
            "last_at",
            "last_reply_at",
            "batches",
            "batch_lines",
        )
        return (
            {name: getattr(self, name) for name in plain}
            | tokens
            | {
                "outcomes": dict(self.outcomes),
                "bodies": len(self.seen),
                "repeated": sum(self.seen.values()) - len(self.seen),
                "delivered": len(self.delivered),
                "delivered_twice": sum(count > 1 for count in self.delivered.values()),
            }
        )
