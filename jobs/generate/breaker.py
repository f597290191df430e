"""When failures are the endpoint's and no longer one request's: the stage ends instead of trying them all."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.common.errors import UnavailableError
from jobs.generate.attempts import LONGEST_RETRY_AFTER_S
from jobs.generate.faults import Fault

BREAKER = 10
"""So many requests given up in a row, and not one reply between them: the endpoint is down."""
BREAKER_AT_THE_EDGES = 3
"""The same, before the first reply, and when nothing is left to ask."""
ABOUT_THE_TEXT = {"content_policy", "too_long"}
"""Reasons that say nothing about the endpoint."""


@dataclass(frozen=True)
class Run:
    """For whom is asked."""

    name: str
    """Run that pays; empty for a command outside a run."""
    rerun: str
    """The command that goes on later, for messages."""


@dataclass
class Breaker:
    """Counts requests that were given up."""

    shown: str
    """The endpoint's name in messages."""
    rerun: str
    known: bool = False
    """Did it reply once, to this process or an earlier one?"""
    _given_up: int = 0
    """Since the last reply."""
    _last: str = ""

    def replied(self) -> None:
        """A reply came: the endpoint works."""
        self._given_up = 0
        self.known = True

    def give_up(self, fault: Fault, others_replied: bool) -> None:
        """Count a request that failed for good.

        Args:
            fault: its last fault.
            others_replied: did other requests get through while this one was tried?

        Raises:
            UnavailableError: it is the endpoint.
        """
        again, kept = f"Then run: {self.rerun}", "every reply so far is journalled"
        if fault.kind == "fatal":
            raise UnavailableError(f"{self.shown}: {fault.detail} {again}")
        if (wait_s := fault.retry_after_s or 0.0) > LONGEST_RETRY_AFTER_S:
            asked = f"asks to wait {wait_s / 60:.0f} minutes"
            raise UnavailableError(f"{self.shown} {asked} ({fault.detail}) {again}; {kept}.")
        never_sent = fault.kind == "retry" and fault.status is None and not fault.charged
        if never_sent and not others_replied:
            raise UnavailableError(f"{self.shown}: {fault.detail} {again}; {kept}.")
        if fault.reason in ABOUT_THE_TEXT or (self.known and fault.kind == "refused"):
            return  # with these very settings it has replied before
        self._given_up += 1
        self._last = fault.detail
        if self._given_up >= (BREAKER if self.known else BREAKER_AT_THE_EDGES):
            raise self._down()

    def finish(self) -> None:
        """Nothing is left to ask; did the end of the run fail because the endpoint was gone?

        Raises:
            UnavailableError: it was.
        """
        if self._given_up >= BREAKER_AT_THE_EDGES:
            raise self._down()

    def _down(self) -> UnavailableError:
        return UnavailableError(
            f"{self.shown}: {self._given_up} requests in a row failed, the last: {self._last} "
            f"Check the recipe's teacher section and the endpoint. Then run: {self.rerun}; "
            f"every reply so far is journalled."
        )
