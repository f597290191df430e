"""Which two of a chain's answers become its preference pair: one that won, and the closest to it in length."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jobs.common.constitution import Principle
from jobs.common.records import Comparison, RedTeamPrompt
from jobs.generate.ask import together
from jobs.generate.filters import same_text
from jobs.generate.judge import Judge, Named


@dataclass(frozen=True)
class Sides:
    """The two answers of a pair."""

    chosen: str
    rejected: str
    probability: float | None
    """The judge's, that chosen is better; None where no judge looked."""


@dataclass(frozen=True)
class Candidates:
    """The usable answers of one chain."""

    prompt: RedTeamPrompt
    principle: Principle
    initials: list[Named]
    revisions: list[Named]
    """Of all rounds; the last one has won against the first initial response, or nobody judged."""
    known: list[Comparison]
    """Comparisons made already; they are not paid twice."""

    async def compare(self, judge: Judge, lane: int) -> list[Comparison]:
        """Compare every revision with every initial response it has not met, and give all comparisons.

        Raises:
            RefusedError: the judge refuses.
            UnavailableError: the endpoint cannot be used.
        """
        met = {(one.first, one.second) for one in self.known}
        new = [
            judge.compare(self.prompt, self.principle, revision, initial, lane)
            for revision in self.revisions
            for initial in self.initials
            if (revision.name, initial.name) not in met
        ]
        return [*self.known, *(await together(new) if new else ())]

    def closest(self, comparisons: list[Comparison] | None) -> Sides:
        """The pair whose sides are closest in length, among those won; None = unjudged: the last revision's pairs."""
        by_name = {one.name: one.text for one in (*self.initials, *self.revisions)}
        if comparisons is None:
            last = self.revisions[-1].text
            # That the revision differs from the first is checked; it may still be what another sample says.
            others = [one for one in self.initials[1:] if not same_text(last, one.text)]
            sides = [Sides(last, initial.text, None) for initial in (self.initials[0], *others)]
        else:
            won = [one for one in comparisons if one.verdict == "first"]
            sides = [Sides(by_name[one.first], by_name[one.second], one.first_probability) for one in won]
        return min(sides, key=lambda one: abs(math.log(_words(one.chosen) / _words(one.rejected))))


def _words(text: str) -> int:
    return max(1, len(text.split()))
