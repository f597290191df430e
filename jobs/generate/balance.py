"""Pairs whose sides are of one length: cut to whole sentences, rewritten, or edited, and judged again each time.

The chosen side of a row is to be within a tenth of the rejected side's words, above it for one half of the rows and
below it for the other (`rewrite.word_bounds`): then length tells nothing about which side is chosen. In this order:

1. whole sentences are left out at the ends of both sides: free, and nothing new is said;
2. the teacher rewrites the chosen side to the wanted length;
3. the teacher edits the chosen side into a rejected one, with as little changed as makes it worse;
4. the pair stays as it is where its lengths differ by no more than `MOST_RATIO`, and is dropped otherwise.

Openings are left to repair, which sees all rows at once: here they would depend on the order of arrival.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jobs.common.constitution import Principle
from jobs.common.records import Comparison, PreferencePair
from jobs.generate.engine import RefusedError
from jobs.generate.filters import Drop, answer_fault, same_text
from jobs.generate.fitting import fit_both, fit_one
from jobs.generate.judge import Judge, Named
from jobs.generate.rewrite import NEAR, Rewriter, Wish, target_words, word_bounds

MOST_RATIO = 1.25
"""Ratio of the two sides' words up to which a pair that could not be balanced is kept."""
MOST_AIM = 2.0
"""A teacher that misses the length is asked for more or fewer words than wanted, by this factor at most."""


@dataclass
class Balance:
    """Balances one pair."""

    rewriter: Rewriter
    judge: Judge | None
    """None: what fits is taken unchecked."""
    principle: Principle
    lane: int
    comparisons: list[Comparison] = field(default_factory=list)
    """What the judge said on the way."""

    async def run(self, pair: PreferencePair) -> PreferencePair | Drop:
        """The balanced pair, or why it is dropped.

        Raises:
            RefusedError: the judge refuses.
            UnavailableError: an endpoint cannot be used.
        """
        if _is_balanced(pair):
            return pair
        found = await self._cut(pair) or await self._rewritten(pair) or await self._edited(pair)
        if found:
            return found
        chosen, rejected = len(pair.chosen.split()), len(pair.rejected.split())
        if max(chosen, rejected) <= MOST_RATIO * min(chosen, rejected):
            return pair
        said = f"chosen has {chosen} words, rejected {rejected}; neither a rewrite nor a minimal edit helped"
        return "unbalanced", said

    async def _cut(self, pair: PreferencePair) -> PreferencePair | None:
        fitted = fit_both(pair.id, pair.chosen, pair.rejected)
        if fitted is None:
            return None
        update: dict[str, object] = {"chosen": fitted[0], "rejected": fitted[1]}
        if fitted[0] != pair.chosen:
            update["chosen_by"] = "rewrite"
        return await self._judged(pair.model_copy(update=update), "cut", "cut-initial")

    async def _rewritten(self, pair: PreferencePair) -> PreferencePair | None:
        wanted = aim = target_words(pair.id, pair.rejected)
        least, most = word_bounds(pair.id, pair.rejected)
        for number in range(self.rewriter.settings.tries):
            try:
                wish = Wish(aim, sample_index=number)
                found = await self.rewriter.to_length(pair, pair.chosen, self.principle, wish, self.lane)
            except RefusedError:
                continue
            text = fit_one(found.text, least, most)
            if text and not answer_fault(pair.kind, pair.rejected, "", text):
                update = {"chosen": text, "chosen_by": "rewrite", "model": self.rewriter.engine.endpoint.model}
                return await self._judged(pair.model_copy(update=update), f"rewrite-{number}", "initial")
            # One that always writes a third too much is asked for a third less.
            aim = round(aim * wanted / max(1, len(found.text.split())))
            aim = max(round(wanted / MOST_AIM), min(round(wanted * MOST_AIM), aim), 1)
        return None

    async def _edited(self, pair: PreferencePair) -> PreferencePair | None:
        tries = self.rewriter.settings.tries
        for number in range(tries):
            try:
                found = await self.rewriter.minimal_edit(
                    pair, pair.chosen, self.principle, sample_index=number, lane=self.lane
                )
            except RefusedError:
                continue
            if same_text(found.text, pair.chosen) or answer_fault("red_team", "", "", found.text):
                continue
            update = {"rejected": found.text, "rejected_by": "minimal_edit"}
            edited = pair.model_copy(update=update | {"rejected_model": self.rewriter.engine.endpoint.model})
            if _is_balanced(edited) or (number == tries - 1 and _is_near(edited)):
                return await self._judged(edited, "chosen", f"edit-{number}")
        return None

    async def _judged(self, pair: PreferencePair, chosen: str, rejected: str) -> PreferencePair | None:
        """The pair with its probability; None where its chosen side does not win."""
        if self.judge is None:
            return pair
        sides = Named(chosen, pair.chosen), Named(rejected, pair.rejected)
        comparison = await self.judge.compare(pair, self.principle, *sides, self.lane)
        self.comparisons.append(comparison)
        if comparison.verdict != "first":
            return None
        return pair.model_copy(update={"preference_probability": comparison.first_probability})


def _is_balanced(pair: PreferencePair) -> bool:
    least, most = word_bounds(pair.id, pair.rejected)
    return least <= len(pair.chosen.split()) <= most


def _is_near(pair: PreferencePair) -> bool:
    """Within the bound, whichever side is longer: an edit differs in so little that neither gives it away."""
    chosen, rejected = len(pair.chosen.split()), len(pair.rejected.split())
    return abs(chosen - rejected) <= NEAR * rejected
