"""How often one request is tried, and how long to wait in between."""

from __future__ import annotations

import random
from dataclasses import dataclass

from jobs.generate.faults import Fault

FIRST_BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 30.0
"""Waits between attempts where the endpoint names none; each is twice the one before."""
LONGEST_RETRY_AFTER_S = 600.0
"""An endpoint that asks for a longer wait ends the stage: running it again later is cheaper than a box that waits."""
JITTER = 0.1
"""What is added to a Retry-After at random, so that refused requests do not come back all at once."""


@dataclass
class Attempts:
    """The attempts of one request."""

    most: int
    """Tries on 5xx, timeouts and broken connections; twice as many on 429, and no end while others get through."""
    failed: int = 0
    throttled: int = 0
    in_vain: int = 0
    """429s in a row while nothing else got through either."""

    @property
    def count(self) -> int:
        """Attempts so far."""
        return self.failed + self.throttled

    def may_go_on(self, fault: Fault, others_replied: bool) -> bool:
        """Count a failed attempt; may there be another one?"""
        if (fault.retry_after_s or 0.0) > LONGEST_RETRY_AFTER_S:
            return False
        if fault.kind == "throttled":
            self.throttled += 1
            self.in_vain = 0 if others_replied else self.in_vain + 1
            return self.in_vain < 2 * self.most
        self.failed += 1
        return fault.kind == "retry" and self.failed < self.most

    def delay_s(self, fault: Fault, others_replied: bool) -> float:
        """Seconds to wait before the next one: no sooner than the endpoint says, longer while nothing gets through."""
        backoff_s: float = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(self.count - 1, 10)) * random.uniform(
            0.5, 1.0
        )
        if fault.retry_after_s is None:
            return backoff_s
        asked_s = fault.retry_after_s * random.uniform(1.0, 1.0 + JITTER)
        return asked_s if others_replied or self.count == 1 else max(asked_s, backoff_s)
