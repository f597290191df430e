"""One chain per prompt: initial response, rounds of critique and revision, and the pair that comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from jobs.common.constitution import Principle
from jobs.common.records import Comparison, Failure, PreferencePair, RedTeamPrompt, Revision
from jobs.generate import wording
from jobs.generate.ask import failure_of, together
from jobs.generate.balance import Balance
from jobs.generate.candidates import Candidates
from jobs.generate.engine import RefusedError
from jobs.generate.filters import Drop
from jobs.generate.initial import Initial
from jobs.generate.judge import Named
from jobs.generate.replies import Text
from jobs.generate.rewrite import Rewriter
from jobs.generate.rounds import Round, Rounds
from jobs.generate.tables import preference_pair
from jobs.generate.wording_twins import with_requests


@dataclass(frozen=True)
class Chained:
    """A finished chain."""

    revision: Revision
    trimmed: int
    """How many of its texts were cut off and trimmed to whole sentences."""
    pair: PreferencePair | None = None
    """For the splits `dpo` and `held_out`."""
    comparisons: tuple[Comparison, ...] = ()
    """Everything the judge said about it."""
    drop: Drop | None = None
    """Why it is not kept."""


@dataclass(frozen=True)
class Chains:
    """Everything a chain needs beside its prompt."""

    initial: Initial
    rounds: Rounds
    rewriter: Rewriter | None
    """None: pairs are not balanced."""
    failed: Callable[[Failure], None]
    """Told of every chain that failed, as it happens."""

    async def run(self, prompts: list[RedTeamPrompt], progress: Callable[[int, int], None]) -> list[Chained | Failure]:
        """Run every prompt's chain, in the prompts' order.

        Args:
            prompts: the frozen prompts.
            progress: called with chains done and wanted.

        Raises:
            UnavailableError: an endpoint cannot be used.
        """
        waiting = list(enumerate(prompts))[::-1]
        done: dict[int, Chained | Failure] = {}

        async def work(lane: int) -> None:
            # A lane ends one chain before it takes the next: its server still holds the chat so far.
            while waiting:
                index, prompt = waiting.pop()
                done[index] = await self._chain(prompt, lane)
                progress(len(done), len(prompts))

        await together([work(lane) for lane in range(min(self.rounds.teacher.lanes, len(prompts)))])
        return [done[index] for index in range(len(prompts))]

    async def _chain(self, prompt: RedTeamPrompt, lane: int) -> Chained | Failure:
        principle = with_requests(self.rounds.constitution.principle(prompt.principle_id), prompt.kind)
        try:
            initials = await self.initial.ask(prompt, principle, lane)
            rounds = await self.rounds.run(prompt, principle, initials[0], lane)
            links = _Links(prompt, principle, initials, rounds, lane)
            chained = links.chained(self.initial.model, self.rounds.teacher.endpoint.model)
            return chained if chained.drop or prompt.split == "sft" else await self._paired(links, chained)
        except RefusedError as error:
            failure = failure_of(error, prompt.id, principle.id, error.step)
            self.failed(failure)
            return failure

    async def _paired(self, links: _Links, chained: Chained) -> Chained:
        """The chain with its pair, or the reason why it has none."""
        candidates, judge = links.candidates(chained.comparisons), self.rounds.judge
        made = await candidates.compare(judge, links.lane) if judge else []
        sides = candidates.closest(made if judge else None)
        update = {"chosen": sides.chosen, "rejected": sides.rejected, "preference_probability": sides.probability}
        pair = preference_pair(chained.revision).model_copy(update=update)
        if self.rewriter is None:
            return replace(chained, pair=pair, comparisons=tuple(made))
        balance = Balance(self.rewriter, judge, links.principle, links.lane)
        found = await balance.run(pair)
        every = (*made, *balance.comparisons)
        if isinstance(found, PreferencePair):
            return replace(chained, pair=found, comparisons=every)
        return replace(chained, drop=found, comparisons=every)


@dataclass(frozen=True)
class _Links:
    """What the requests of one chain gave."""

    prompt: RedTeamPrompt
    principle: Principle
    initials: list[Text]
    rounds: list[Round]
    lane: int

    def chained(self, initial_model: str, teacher: str) -> Chained:
        """The chain up to its last revision, with the judge's word on it."""
        prompt, principle, last = self.prompt, self.principle, self.rounds[-1]
        record = Revision(
            id=prompt.id,
            principle_id=principle.id,
            prompt=prompt.prompt,
            split=prompt.split,
            initial_response=self.initials[0].text,
            critique_request=principle.critique_request,
            critique=last.critique.text,
            revision_request=principle.revision_request,
            revision=last.revision.text,
            initial_model=initial_model,
            model=teacher,
            prompt_version=wording.PROMPT_VERSION,
            kind=prompt.kind,
            language=prompt.language,
            rounds=len(self.rounds),
            preference_probability=last.comparison.first_probability if last.comparison else None,
        )
        comparisons = tuple(one.comparison for one in self.rounds if one.comparison)
        trimmed = sum(text.trimmed for text in (self.initials[0], last.critique, last.revision))
        return Chained(record, trimmed, comparisons=comparisons, drop=last.lost)

    def candidates(self, known: tuple[Comparison, ...]) -> Candidates:
        """The answers a pair can be made of: every initial response, and every revision without a fault."""
        initials = [Named(f"initial-{number}", text.text) for number, text in enumerate(self.initials)]
        revisions = [
            Named(f"revision-{number}", one.revision.text)
            for number, one in enumerate(self.rounds, 1)
            if one.comparison or not one.lost
        ]
        return Candidates(self.prompt, self.principle, initials, revisions, list(known))
