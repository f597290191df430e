"""What every driver shares: lanes that take the next request when their last one is done, and figures on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.memory import peak_rss_mib, rss_mib

QUARTERS = 4


@dataclass
class Drive:
    """One pass over numbered requests."""

    total: int
    done: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    rss_mib: list[float] = field(default_factory=list)
    """At 25, 50, 75 and 100 %."""

    async def run(self, numbers: Iterable[int], lanes: int, ask: Callable[[int, int], Awaitable[None]]) -> None:
        """Ask all numbers with so many lanes; `ask` gets number and lane."""
        waiting = iter(numbers)

        async def work(lane: int) -> None:
            for number in waiting:
                await ask(number, lane)
                self._count()

        self.first_at = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for lane in range(min(lanes, self.total)):
                group.create_task(work(lane))

    def _count(self) -> None:
        self.done += 1
        self.last_at = time.monotonic()
        if self.done * QUARTERS >= self.total * (len(self.rss_mib) + 1):
            self.rss_mib.append(rss_mib())

    def figures(self) -> dict[str, Any]:
        """For the driver's last line; times by `time.monotonic()`."""
        return {
            "first_at": self.first_at,
            "last_at": self.last_at,
            "done": self.done,
            "rss_mib": self.rss_mib,
            "peak_rss_mib": peak_rss_mib(),
        }
