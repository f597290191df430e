"""Rounds of critique and revision on an initial response, until the revision wins against it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from jobs.common.constitution import Constitution, Principle
from jobs.common.generate_settings import GenerateSettings
from jobs.common.records import Comparison, RedTeamPrompt
from jobs.generate import wording
from jobs.generate.ask import ask_text
from jobs.generate.engine import Engine
from jobs.generate.filters import Drop, answer_fault
from jobs.generate.judge import Judge, Named
from jobs.generate.replies import Text
from jobs.generate.requests import ChatRequest, Sampling, Schema, Step, Turn

LOST = {
    "second": "judge_lost",
    "flipped": "judge_flipped",
    "tie": "judge_tie",
    "unreadable": "judge_unreadable",
}
"""Verdict → why the revision is dropped."""


@dataclass(frozen=True)
class Round:
    """One critique, the revision after it, and what became of it."""

    critique: Text
    revision: Text
    comparison: Comparison | None
    """With the initial response; None where no judge looked."""
    lost: Drop | None
    """Why the revision cannot be kept."""


@dataclass(frozen=True)
class Rounds:
    """Asks for critiques and revisions."""

    teacher: Engine
    constitution: Constitution
    settings: GenerateSettings
    sampling: Sampling
    judge: Judge | None
    """None: the first revision stands unchecked."""

    async def run(self, prompt: RedTeamPrompt, principle: Principle, initial: Text, lane: int) -> list[Round]:
        """Rounds up to the first whose revision wins, or `max_revisions` of them.

        Each round is a chat of its own about the last usable answer, so that it grows no longer than the first.

        Raises:
            RefusedError: a request failed for good.
            UnavailableError: an endpoint cannot be used.
        """
        rounds: list[Round] = []
        answer = initial.text
        for number in range(self.settings.max_revisions if self.judge else 1):
            critique, revision = await self._ask(prompt, principle, answer, number, lane)
            lost = answer_fault(prompt.kind, initial.text, critique.text, revision.text)
            comparison = None
            if not lost:
                answer = revision.text
                if self.judge:
                    ours, first = Named(f"revision-{number + 1}", answer), Named("initial-0", initial.text)
                    comparison = await self.judge.compare(prompt, principle, ours, first, lane)
                    lost = why_lost(comparison)
            rounds.append(Round(critique, revision, comparison, lost))
            if not lost:
                break
        return rounds

    async def _ask(
        self, prompt: RedTeamPrompt, principle: Principle, answer: str, number: int, lane: int
    ) -> tuple[Text, Text]:
        """Critique and revision of an answer, in the round with this number, from 0."""
        tries = self.settings.tries
        before = wording.demonstration_turns(self.constitution, self.settings.few_shot)
        turns = wording.critique_turns(before, prompt.prompt, answer, principle)
        # A round about the same answer as the one before must not get the same replies.
        ask = partial(self._request, sample_index=number * tries, lane=lane)
        critique = await ask_text(self.teacher, ask("critique", turns, wording.CRITIQUE), tries)
        turns = wording.revision_turns(turns, critique.text, principle)
        fault = partial(answer_fault, prompt.kind, answer, critique.text)
        return critique, await ask_text(self.teacher, ask("revision", turns, wording.REVISION), tries, fault)

    def _request(
        self, step: Step, turns: tuple[Turn, ...], schema: Schema, *, sample_index: int, lane: int
    ) -> ChatRequest:
        return ChatRequest(
            step=step,
            turns=turns,
            max_tokens=self.settings.critique_tokens if step == "critique" else self.settings.response_tokens,
            sampling=self.sampling,
            prompt_version=wording.PROMPT_VERSION,
            schema=schema,
            sample_index=sample_index,
            lane=lane,
        )


def why_lost(comparison: Comparison) -> Drop | None:
    """Why a revision, shown as `first`, does not stand against the other answer."""
    if comparison.verdict == "first":
        return None
    said = " and ".join(
        f"{'no verdict' if chance is None else f'{chance:.2f}'} shown {where}"
        for chance, where in ((comparison.shown_first, "first"), (comparison.shown_second, "second"))
    )
    return LOST[comparison.verdict], f"{comparison.first} better than {comparison.second}: {said}"
