"""What one process used at an endpoint: requests, tokens and money, new ones apart from those the journal held."""

from __future__ import annotations

from dataclasses import dataclass, field

from jobs.common.live import RecentRate
from jobs.generate.budget import Tariff
from jobs.generate.journal import Reply


@dataclass
class Used:
    """Requests and tokens of one kind."""

    requests: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0

    def add(self, reply: Reply) -> None:
        """Count one reply."""
        self.requests += 1
        self.prompt_tokens += reply.prompt_tokens
        self.reply_tokens += reply.reply_tokens


@dataclass
class Meter:
    """Counts what comes back from one endpoint."""

    tariff: Tariff
    new: Used = field(default_factory=Used)
    new_batch: Used = field(default_factory=Used)
    """The part of `new` that came through the Batch API."""
    journalled: Used = field(default_factory=Used)
    journalled_batch: Used = field(default_factory=Used)
    retried: int = 0
    """Attempts that failed by anything but a 429."""
    speed: RecentRate = field(default_factory=RecentRate)
    """Reply tokens of new replies in a second."""

    def add(self, reply: Reply) -> None:
        """Count a new reply."""
        self.new.add(reply)
        if reply.batch:
            self.new_batch.add(reply)
        self.speed.add(reply.reply_tokens)

    def add_journalled(self, reply: Reply) -> None:
        """Count a reply that was paid before."""
        self.journalled.add(reply)
        if reply.batch:
            self.journalled_batch.add(reply)

    @property
    def requests(self) -> int:
        """Replies counted so far."""
        return self.new.requests + self.journalled.requests

    @property
    def new_usd(self) -> float | None:
        """What this process paid for replies; None where no price is known."""
        return self._usd(self.new, self.new_batch)

    @property
    def total_usd(self) -> float | None:
        """What the replies behind the rows cost, now or when they were journalled."""
        new, journalled = self.new_usd, self._usd(self.journalled, self.journalled_batch)
        return None if new is None or journalled is None else new + journalled

    def tokens(self) -> dict[str, int]:
        """Token counts for the manifest."""
        return {
            "prompt_tokens": self.new.prompt_tokens + self.journalled.prompt_tokens,
            "reply_tokens": self.new.reply_tokens + self.journalled.reply_tokens,
            "new_prompt_tokens": self.new.prompt_tokens,
            "new_reply_tokens": self.new.reply_tokens,
            "journalled_prompt_tokens": self.journalled.prompt_tokens,
            "journalled_reply_tokens": self.journalled.reply_tokens,
        }

    def _usd(self, every: Used, batch: Used) -> float | None:
        live_usd = self.tariff.usd(every.prompt_tokens - batch.prompt_tokens, every.reply_tokens - batch.reply_tokens)
        batch_usd = self.tariff.usd(batch.prompt_tokens, batch.reply_tokens, batch=True)
        return None if live_usd is None or batch_usd is None else live_usd + batch_usd


def money(usd: float | None, dated: str | None, *, free: bool) -> str:
    """A cost in words."""
    if free:
        return "$0 (embedded)"
    if usd is None:
        return "cost unknown (no price in the recipe)"
    return f"${usd:.4f} (prices of {dated})"
