"""Red-team prompts for every principle, counted and frozen: the one barrier of the generate stage.

Each principle asks on its own until it has its prompts; no principle waits for another one's replies. Then all are read
in the constitution's order, so what is accepted does not depend on which reply came first, and a principle that lost
prompts to another one's duplicates asks once more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from jobs.common.constitution import Constitution, Principle
from jobs.common.generate_settings import GenerateSettings
from jobs.common.records import Dropped, Failure, record_id
from jobs.generate import wording
from jobs.generate.ask import failure_of, together
from jobs.generate.engine import Engine, RefusedError
from jobs.generate.filters import Distinct, prompt_fault
from jobs.generate.replies import read_prompts
from jobs.generate.requests import ChatRequest, Sampling


@dataclass(frozen=True)
class Draft:
    """An accepted prompt before it has a split."""

    principle_id: str
    prompt: str
    sample_index: int

    @property
    def id(self) -> str:
        """Id of everything that descends from it."""
        return record_id(self.principle_id, self.prompt)


@dataclass
class Collected:
    """What the requests for prompts gave."""

    drafts: list[Draft] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    requests: dict[str, int] = field(default_factory=dict)
    """Requests made so far, by principle."""
    _counts: dict[str, int] = field(default_factory=dict)
    _distinct: Distinct = field(default_factory=Distinct)

    def __post_init__(self) -> None:
        for _, prompt in wording.EXAMPLES:
            self._distinct.add(prompt)

    def count(self, principle_id: str) -> int:
        """Prompts accepted for a principle."""
        return self._counts.get(principle_id, 0)

    def offer(self, draft: Draft) -> None:
        """Accept a prompt, or drop it with its reason."""
        fault = prompt_fault(draft.prompt)
        if not fault and (same := self._distinct.same_as(draft.prompt)):
            fault = ("duplicate", same)
        if fault:
            record = {"prompt": draft.prompt, "sample_index": draft.sample_index}
            reason, detail = fault
            self.dropped.append(
                Dropped(id=draft.id, principle_id=draft.principle_id, drop_reason=reason, detail=detail, record=record)
            )
            return
        self._distinct.add(draft.prompt)
        self._counts[draft.principle_id] = self.count(draft.principle_id) + 1
        self.drafts.append(draft)


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
        """Ask until every principle has its prompts or has used up its requests.

        Args:
            progress: called with prompts accepted and wanted.

        Raises:
            UnavailableError: the endpoint cannot be used.
        """
        found = Collected()
        principles = self.constitution.principles
        wanted = self.settings.prompts_per_principle
        total, come = wanted * len(principles), 0

        def one_more() -> None:
            nonlocal come
            come += 1
            progress(min(come, total - 1), total)  # not yet checked against the others', so not yet all

        while short := [one for one in principles if self._next_requests(one, found.requests, found.count(one.id))]:
            missing = [wanted - found.count(one.id) for one in short]
            work = [
                self._supply(one, found.requests.get(one.id, 0), lacking, one_more)
                for one, lacking in zip(short, missing, strict=True)
            ]
            for principle, supply in zip(short, await together(work), strict=True):
                found.requests[principle.id] = found.requests.get(principle.id, 0) + len(supply)
                for index, prompts, failure in supply:
                    if failure:
                        found.failures.append(failure)
                    for prompt in prompts:
                        if found.count(principle.id) < wanted:
                            found.offer(Draft(principle.id, prompt, index))
            come = len(found.drafts)
            progress(come, total)
        return found

    async def _supply(
        self, principle: Principle, begun: int, lacking: int, one_more: Callable[[], None]
    ) -> list[tuple[int, list[str], Failure | None]]:
        """Ask for one principle alone until it has what it lacks, as far as it can tell."""
        own, supply = Collected(), list[tuple[int, list[str], Failure | None]]()
        requests = {principle.id: begun}
        had = self.settings.prompts_per_principle - lacking
        while indices := self._next_requests(principle, requests, had + own.count(principle.id)):
            come = await together([self._ask(principle, index) for index in indices])
            requests[principle.id] = indices[-1] + 1
            for index, (prompts, failure) in zip(indices, come, strict=True):
                supply.append((index, prompts, failure))
                for prompt in prompts:
                    before = own.count(principle.id)
                    own.offer(Draft(principle.id, prompt, index))
                    if own.count(principle.id) > before and before < lacking:
                        one_more()
        return supply

    def _next_requests(self, principle: Principle, requests: dict[str, int], had: int) -> list[int]:
        settings = self.settings
        begun = requests.get(principle.id, 0)
        wanted = -(-(settings.prompts_per_principle - had) // settings.prompts_per_request)
        return list(range(begun, min(begun + wanted, settings.max_requests_per_principle)))

    async def _ask(self, principle: Principle, index: int) -> tuple[list[str], Failure | None]:
        size = self.settings.prompts_per_request
        request = ChatRequest(
            step="prompts",
            turns=wording.prompts_turns(principle, self.constitution, size, index),
            max_tokens=self.settings.prompt_tokens,
            sampling=self.sampling,
            prompt_version=wording.PROMPT_VERSION,
            schema=wording.PROMPTS if size > 1 else None,
            sample_index=index,
            lane=next(self._lanes),
        )
        try:
            reply = await self.engine.ask(request)
        except RefusedError as error:
            failure = failure_of(error, f"{principle.id}-request-{index}", principle.id, "prompts")
            self.failed(failure)
            return [], failure
        return read_prompts(reply, size), None
