"""Red-team prompts for every principle, one for each brief: asked for until all are there or the teacher gives no more.

Each principle asks on its own; no principle waits for another one's replies. Then all are read in the constitution's
order, so what is accepted does not depend on which reply came first, and a principle that lost prompts to another
one's duplicates asks once more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from jobs.common.constitution import Constitution
from jobs.common.generate_settings import GenerateSettings
from jobs.common.records import Dropped, Failure
from jobs.generate import wording, wording_prompts
from jobs.generate.ask import failure_of, together
from jobs.generate.briefs import plan_briefs
from jobs.generate.engine import Engine, RefusedError
from jobs.generate.filters import Drop, prompt_fault
from jobs.generate.languages import wrong_language
from jobs.generate.requests import ChatRequest, Sampling, Turn
from jobs.generate.slots import Asked, Draft, Slots, read_numbered
from jobs.generate.twins import dropped
from jobs.measure.near import Distinct


@dataclass
class Collected:
    """What the requests for prompts gave."""

    slots: list[Slots]
    """Every principle's, in the constitution's order."""
    dropped: list[Dropped] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    distinct: Distinct = field(default_factory=Distinct)
    """Every accepted prompt, and the wording's own examples."""

    @property
    def drafts(self) -> list[Draft]:
        """Accepted prompts, by principle and brief."""
        return [draft for slots in self.slots for draft in slots.drafts]


@dataclass
class Supply:
    """What one principle's requests gave, seen from that principle alone."""

    accepted: list[tuple[int, Draft]] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    distinct: Distinct = field(default_factory=Distinct)


@dataclass(frozen=True)
class RedTeam:
    """Who is asked for what."""

    engine: Engine
    constitution: Constitution
    settings: GenerateSettings
    sampling: Sampling
    failed: Callable[[Failure], None]
    """Told of every request that failed, as it happens."""
    _lanes: count[int] = field(default_factory=count)

    async def collect(self, progress: Callable[[int, int], None]) -> Collected:
        """Ask until every principle has its prompts, has used up its requests or is given no more.

        Args:
            progress: called with prompts accepted and wanted.

        Raises:
            UnavailableError: the endpoint cannot be used.
        """
        principles, seed = self.constitution.principles, self.sampling.seed
        found = Collected([Slots(one, plan_briefs(one, self.constitution, self.settings, seed)) for one in principles])
        for _, *shown in wording_prompts.EXAMPLES:
            for text in shown:
                found.distinct.add(text)
        total, come = self.settings.prompts_per_principle * len(principles), 0

        def one_more() -> None:
            nonlocal come
            come += 1
            progress(min(come, total - 1), total)  # not yet checked against the others', so not yet all

        while short := [slots for slots in found.slots if slots.next_wave(self.settings)]:
            supplies = await together([self._supply(slots, found.distinct, one_more) for slots in short])
            for slots, supply in zip(short, supplies, strict=True):
                _merge(found, slots, supply)
            come = sum(len(slots.filled) for slots in found.slots)
            progress(come, total)
        return found

    async def _supply(self, slots: Slots, others: Distinct, one_more: Callable[[], None]) -> Supply:
        """Ask for one principle alone until it has what it lacks, as far as it can tell."""
        supply = Supply()
        while wave := slots.next_wave(self.settings):
            shown, before = [draft.prompt for draft in slots.drafts], len(supply.accepted)
            for asked, come in zip(wave, await together([self._ask(slots, one, shown) for one in wave]), strict=True):
                if isinstance(come, Failure):
                    supply.failures.append(come)
                    continue
                for place, text in come:
                    number = asked.numbers[place]
                    draft = Draft(slots.principle.id, text, asked.index, slots.briefs[number])
                    if fault := _fault(draft, others, supply.distinct):
                        supply.dropped.append(dropped(draft, fault))
                    elif number not in slots.filled:
                        supply.distinct.add(text)
                        supply.accepted.append((number, draft))
                        slots.filled[number] = draft
                        one_more()
            slots.count(wave, len(supply.accepted) - before)
        return supply

    async def _ask(self, slots: Slots, asked: Asked, shown: list[str]) -> list[tuple[int, str]] | Failure:
        size = len(asked.numbers)
        one_at_a_time = self.settings.prompts_per_request == 1
        request = ChatRequest(
            step="prompts",
            turns=self._turns(slots, asked, shown),
            max_tokens=self.settings.prompt_tokens,
            sampling=self.sampling,
            prompt_version=wording.PROMPT_VERSION,
            schema=None if one_at_a_time else wording_prompts.PROMPTS,
            sample_index=asked.index,
            lane=next(self._lanes),
        )
        try:
            return read_numbered(await self.engine.ask(request), size)
        except RefusedError as error:
            principle = slots.principle
            failure = failure_of(error, f"{principle.id}-request-{asked.index}", principle.id, "prompts")
            self.failed(failure)
            return failure

    def _turns(self, slots: Slots, asked: Asked, shown: list[str]) -> tuple[Turn, ...]:
        briefs = [slots.briefs[number] for number in asked.numbers]
        if self.settings.prompts_per_request == 1:
            return wording_prompts.one_prompt_turns(slots.principle, briefs[0].language)
        values, languages = [brief.values for brief in briefs], [brief.language for brief in briefs]
        return wording_prompts.prompts_turns(slots.principle, values, languages, shown)


def _merge(found: Collected, slots: Slots, supply: Supply) -> None:
    """Take what one principle found good into the whole; what another one had first leaves its brief open again."""
    found.dropped += supply.dropped
    found.failures += supply.failures
    for number, draft in supply.accepted:
        if same := found.distinct.same_as(draft.prompt):
            del slots.filled[number]
            found.dropped.append(dropped(draft, ("duplicate", same)))
        else:
            found.distinct.add(draft.prompt)


def _fault(draft: Draft, others: Distinct, own: Distinct) -> Drop | None:
    if fault := prompt_fault(draft.prompt) or wrong_language(draft.prompt, draft.brief.language):
        return fault
    same = others.same_as(draft.prompt) or own.same_as(draft.prompt)
    return ("duplicate", same) if same else None
