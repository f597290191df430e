"""The budget of a run: the worst case is set aside before each call, so that the cap holds whatever comes back.

reserved = await budget.reserve(worst)     # waits for others to end, or raises StoppedError when it never fits
budget.settle(reserved, used)
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from jobs.common.errors import StoppedError
from jobs.common.generate_settings import PriceSettings

MILLION = 1_000_000
ROUNDING_USD = 1e-9
"""A sum of prices may be off by this much; it must not stop a run that ends exactly at its cap."""


@dataclass(frozen=True)
class Cost:
    """Money and tokens; an endpoint that charges nothing costs neither."""

    usd: float = 0.0
    tokens: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.usd + other.usd, self.tokens + other.tokens)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.usd - other.usd, self.tokens - other.tokens)


@dataclass(frozen=True)
class Tariff:
    """What an endpoint charges: `price` None is unknown, `free` is the embedded model."""

    price: PriceSettings | None
    free: bool = False

    def cost(self, prompt_tokens: int, reply_tokens: int, *, batch: bool = False) -> Cost:
        """Cost of these tokens; unknown prices count as 0 dollars, which `Budget` refuses where dollars are capped."""
        if self.free:
            return Cost()
        return Cost(self.usd(prompt_tokens, reply_tokens, batch=batch) or 0.0, prompt_tokens + reply_tokens)

    def usd(self, prompt_tokens: int, reply_tokens: int, *, batch: bool = False) -> float | None:
        """Price of these tokens in US dollars, None where unknown."""
        if self.free:
            return 0.0
        if self.price is None:
            return None
        full = (
            prompt_tokens * self.price.input_usd_per_million_tokens
            + reply_tokens * self.price.output_usd_per_million_tokens
        )
        return full / MILLION * (1 - self.price.batch_discount if batch else 1)


@dataclass
class Budget:
    """Caps of one run; None caps nothing."""

    usd: float | None
    tokens: int | None
    rerun: str
    """The command that goes on later, for the message."""
    spent: Cost = field(default_factory=Cost)
    """Settled, and the worst case of requests that were lost in flight, over all resumes."""
    reserved: Cost = field(default_factory=Cost)
    """Worst case of what is in flight."""
    _waiting: deque[tuple[Cost, asyncio.Future[None]]] = field(default_factory=deque)
    _stopped: str = ""
    """Why nothing more is let through: a smaller request that still fits would be on its way while the run ends."""

    async def reserve(self, worst: Cost) -> Cost:
        """Set the worst case aside, once what is in flight leaves room for it.

        Raises:
            StoppedError: nothing is in flight and it still does not fit.
        """
        if self._stopped:
            raise StoppedError(self._stopped)
        if not self._waiting and self._fits(worst):
            self.reserved += worst
            return worst
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((worst, turn))
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.settle(worst, Cost())
            raise
        return worst

    def settle(self, reserved: Cost, used: Cost) -> None:
        """Give back what was set aside and count what was used instead."""
        self.reserved -= reserved
        self.spent += used
        self._admit()

    @property
    def left(self) -> Cost:
        """What is neither spent nor set aside, where there is a cap."""
        used = self.spent + self.reserved
        return Cost(max(0.0, (self.usd or 0.0) - used.usd), max(0, (self.tokens or 0) - used.tokens))

    def _fits(self, worst: Cost) -> bool:
        after = self.spent + self.reserved + worst
        return (self.usd is None or after.usd <= self.usd + ROUNDING_USD) and (
            self.tokens is None or after.tokens <= self.tokens
        )

    def _admit(self) -> None:
        while self._waiting:
            worst, turn = self._waiting[0]
            if turn.done():  # its task was cancelled
                self._waiting.popleft()
                continue
            if not self._stopped and self._fits(worst):
                self.reserved += worst
                turn.set_result(None)
            elif self._stopped or self.reserved.tokens == 0:
                self._stopped = self._stopped or self._reached(worst)
                turn.set_exception(StoppedError(self._stopped))
            else:
                return
            self._waiting.popleft()

    def _reached(self, worst: Cost) -> str:
        if self.usd is not None and self.spent.usd + worst.usd > self.usd + ROUNDING_USD:
            key, cap, used = "budget_usd", f"{self.usd:g}", f"${self.spent.usd:.4f} spent"
            more = f"may cost ${worst.usd:.4f}"
        else:
            key, cap, used = "budget_tokens", str(self.tokens), f"{self.spent.tokens} used"
            more = f"may take {worst.tokens}"
        return (
            f"{key} {cap} is reached: {used}, the next request {more}. Every reply so far is journalled. "
            f"Raise {key} and run again: {self.rerun}"
        )
