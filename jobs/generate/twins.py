"""Benign twins: every red-team prompt's sibling in nearly the same words, which a good answer simply helps.

A model that sees refusals alone learns to refuse; one that sees both siblings has to look at what is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count

from jobs.common.constitution import Constitution
from jobs.common.generate_settings import GenerateSettings
from jobs.common.records import Dropped, Failure
from jobs.generate import wording, wording_prompts
from jobs.generate.ask import ask_text, failure_of, together
from jobs.generate.engine import Engine, RefusedError
from jobs.generate.filters import Drop, prompt_fault, words_of
from jobs.generate.languages import wrong_language
from jobs.generate.replies import one_line
from jobs.generate.requests import ChatRequest, Sampling
from jobs.generate.slots import Draft
from jobs.measure.near import Distinct

LEAST_SHARED = 0.3
"""Overlap of the two siblings' words (Jaccard) below which one is no small edit of the other."""


@dataclass
class FoundTwins:
    """What the requests for twins gave."""

    twins: list[Draft] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True)
class TwinWriter:
    """Who is asked for twins."""

    engine: Engine
    constitution: Constitution
    settings: GenerateSettings
    sampling: Sampling
    failed: Callable[[Failure], None]
    """Told of every twin that failed, as it happens."""
    _lanes: count[int] = field(default_factory=count)

    async def write(self, drafts: list[Draft], distinct: Distinct, progress: Callable[[int, int], None]) -> FoundTwins:
        """Ask for the twin of every prompt; one whose twin cannot be used stays alone.

        Args:
            drafts: all accepted red-team prompts; twins are accepted in their order, whichever reply comes first.
            distinct: holds every accepted prompt, and every twin afterwards.
            progress: called with twins that came and wanted.

        Raises:
            UnavailableError: the endpoint cannot be used.
        """
        found, come = FoundTwins(), count(1)

        async def one(draft: Draft) -> Draft | Failure:
            twin = await self._ask(draft)
            progress(next(come), len(drafts))
            return twin

        for draft, twin in zip(drafts, await together([one(draft) for draft in drafts]), strict=True):
            if isinstance(twin, Failure):
                found.failures.append(twin)
            elif fault := twin_fault(draft, twin.prompt) or _same(distinct, draft, twin):
                found.dropped.append(dropped(twin, fault))
            else:
                distinct.add(twin.prompt)
                found.twins.append(twin)
        return found

    async def _ask(self, draft: Draft) -> Draft | Failure:
        principle = self.constitution.principle(draft.principle_id)
        small = self.settings.prompts_per_request == 1
        turns = wording_prompts.one_twin_turns if small else wording_prompts.twin_turns
        request = ChatRequest(
            step="twins",
            turns=turns(principle, draft.prompt),
            max_tokens=self.settings.prompt_tokens,
            sampling=self.sampling,
            prompt_version=wording.PROMPT_VERSION,
            schema=None if small else wording_prompts.TWIN,
            lane=next(self._lanes),
        )
        try:
            text = await ask_text(
                self.engine, request, self.settings.tries, fault=lambda text: twin_fault(draft, one_line(text))
            )
        except RefusedError as error:
            failure = failure_of(error, f"{draft.id}-twin", draft.principle_id, "twins")
            self.failed(failure)
            return failure
        return replace(
            draft, prompt=one_line(text.text), sample_index=text.sample_index, kind="benign_twin", twin_of=draft.id
        )


def twin_fault(sibling: Draft, text: str) -> Drop | None:
    """Why a text is no benign twin of a prompt, whatever the others are."""
    if fault := prompt_fault(text):
        return fault
    one, other = words_of(sibling.prompt), words_of(text)
    shared = len(one & other) / len(one | other)
    if one == other:
        return "not_a_twin", "the same words as its sibling"
    if shared < LEAST_SHARED:
        return "not_a_twin", f"shares {shared:.0%} of its sibling's words"
    return wrong_language(text, sibling.brief.language)


def dropped(draft: Draft, fault: Drop) -> Dropped:
    """The row of dropped.jsonl for a prompt that is not used."""
    record = {"prompt": draft.prompt, "sample_index": draft.sample_index, "kind": draft.kind}
    record |= {"brief": dict(draft.brief.values), "language": draft.brief.language, "twin_of": draft.twin_of}
    reason, detail = fault
    return Dropped(id=draft.id, principle_id=draft.principle_id, drop_reason=reason, detail=detail, record=record)


def _same(distinct: Distinct, sibling: Draft, twin: Draft) -> Drop | None:
    same = distinct.same_as(twin.prompt, besides=(sibling.prompt,))
    return ("duplicate", same) if same else None
