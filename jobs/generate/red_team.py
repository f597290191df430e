"""Red-team prompts for every principle, counted and frozen: the one barrier of the generate stage.

Requests go out in rounds. In each round every principle that is still short asks for what it misses, all at once;
then replies are read in the constitution's order, so what is accepted does not depend on which reply came first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from jobs.common.constitution import Constitution, Principle
from jobs.common.records import Dropped, Failure, record_id
from jobs.common.settings import GenerateSettings
from jobs.generate import wording
from jobs.generate.ask import together
from jobs.generate.filters import is_same, prompt_fault, words_of
from jobs.generate.replies import read_prompts
from jobs.generate.requests import ChatRequest, Sampling
from jobs.generate.teacher import RefusedError, Teacher


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
    _seen: list[tuple[frozenset[str], str]] = field(default_factory=list)

    def count(self, principle_id: str) -> int:
        """Prompts accepted for a principle."""
        return sum(draft.principle_id == principle_id for draft in self.drafts)

    def offer(self, draft: Draft) -> None:
        """Accept a prompt, or drop it with its reason."""
        words = words_of(draft.prompt)
        fault = prompt_fault(draft.prompt)
        if not fault:
            same = next((prompt for seen, prompt in self._seen if is_same(seen, words)), None)
            fault = ("duplicate", same) if same else None
        if fault:
            record = {"prompt": draft.prompt, "sample_index": draft.sample_index}
            reason, detail = fault
            self.dropped.append(
                Dropped(id=draft.id, principle_id=draft.principle_id, drop_reason=reason, detail=detail, record=record)
            )
            return
        self._seen.append((words, draft.prompt))
        self.drafts.append(draft)


@dataclass(frozen=True)
class RedTeam:
    """Who is asked for what."""

    teacher: Teacher
    constitution: Constitution
    settings: GenerateSettings
    sampling: Sampling

    async def collect(self, progress: Callable[[int, int], None]) -> Collected:
        """Ask until every principle has its prompts or has used up its requests.

        Args:
            progress: called with prompts accepted and wanted.

        Raises:
            UnavailableError: the endpoint cannot be used.
        """
        found = Collected()
        found._seen.extend((words_of(prompt), prompt) for _, prompt in wording.EXAMPLES)
        wanted = self.settings.prompts_per_principle
        total = wanted * len(self.constitution.principles)
        while work := self._next_round(found):
            come = len(found.drafts)

            async def ask(principle: Principle, index: int, lane: int) -> tuple[list[str], Failure | None]:
                nonlocal come
                reply = await self._ask(principle, index, lane)
                come += len(reply[0])
                progress(min(come, total - 1), total)  # not yet checked, so not yet all
                return reply

            replies = await together([ask(*request, lane) for lane, request in enumerate(work)])
            for (principle, index), (prompts, failure) in zip(work, replies, strict=True):
                found.requests[principle.id] = index + 1
                if failure:
                    found.failures.append(failure)
                for prompt in prompts:
                    if found.count(principle.id) < wanted:
                        found.offer(Draft(principle.id, prompt, index))
            progress(len(found.drafts), total)
        return found

    def _next_round(self, found: Collected) -> list[tuple[Principle, int]]:
        settings = self.settings
        work = []
        for principle in self.constitution.principles:
            begun = found.requests.get(principle.id, 0)
            missing = settings.prompts_per_principle - found.count(principle.id)
            wanted = -(-missing // settings.prompts_per_request)
            end = min(begun + wanted, settings.max_requests_per_principle)
            work += [(principle, index) for index in range(begun, end)]
        return work

    async def _ask(self, principle: Principle, index: int, lane: int) -> tuple[list[str], Failure | None]:
        count = self.settings.prompts_per_request
        request = ChatRequest(
            step="prompts",
            turns=wording.prompts_turns(principle, self.constitution, count, index),
            max_tokens=self.settings.prompt_tokens,
            sampling=self.sampling,
            prompt_version=wording.PROMPT_VERSION,
            schema=wording.PROMPTS if count > 1 else None,
            sample_index=index,
            lane=lane,
        )
        try:
            reply = await self.teacher.ask(request)
        except RefusedError as error:
            failure = Failure(
                id=f"{principle.id}-request-{index}",
                principle_id=principle.id,
                step="prompts",
                reason=error.reason,
                detail=error.detail,
            )
            return [], failure
        return read_prompts(reply, count), None
