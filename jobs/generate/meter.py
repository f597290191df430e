"""What a run used: requests, tokens and money, split into newly asked and taken from the journal."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from jobs.common.settings import PriceSettings
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
    """Counts replies of one endpoint; `price` is None where unknown, `free` where nothing is charged."""

    price: PriceSettings | None
    free: bool = False
    new: Used = field(default_factory=Used)
    journalled: Used = field(default_factory=Used)
    begun: float = field(default_factory=time.monotonic)

    def cost_usd(self, *parts: Used) -> float | None:
        """Cost of these parts in US dollars, None where no price is known."""
        if self.free:
            return 0.0
        if self.price is None:
            return None
        million = 1_000_000
        return sum(
            part.prompt_tokens * self.price.input_usd_per_million_tokens / million
            + part.reply_tokens * self.price.output_usd_per_million_tokens / million
            for part in parts
        )

    @property
    def requests(self) -> int:
        """Replies counted so far."""
        return self.new.requests + self.journalled.requests

    @property
    def total_usd(self) -> float | None:
        """What the replies behind the rows cost, now or when they were journalled."""
        return self.cost_usd(self.new, self.journalled)

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

    def money(self) -> str:
        """The cost in words."""
        if self.free:
            return "$0 (embedded)"
        total = self.total_usd
        if total is None or self.price is None:
            return "cost unknown (no price in the recipe)"
        return f"${total:.4f} (prices of {self.price.dated})"


def figures(meters: list[Meter]) -> str:
    """What to show beside the progress: speed, tokens in and out, cost of the teacher (the first meter)."""
    new = [meter.new for meter in meters]
    seconds = max(time.monotonic() - meters[0].begun, 0.001)
    speed = sum(used.reply_tokens for used in new) / seconds
    tokens_in = sum(meter.new.prompt_tokens + meter.journalled.prompt_tokens for meter in meters)
    tokens_out = sum(meter.new.reply_tokens + meter.journalled.reply_tokens for meter in meters)
    return f"{speed:.0f} tokens/s  {tokens_in} in, {tokens_out} out  {meters[0].money()}"
