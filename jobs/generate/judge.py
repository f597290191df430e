"""The judge: blind, in both orders, and it says how sure it is.

    comparison = await judge.compare(prompt, principle, Named("revision-1", …), Named("initial-0", …))
    comparison.verdict      # first, second, tie, flipped or unreadable

Each request shows principle, message and two answers as A and B. The probability of the letter is read from the
endpoint's token probabilities (choices.py), so that a verdict is soft; both orders are averaged in log-odds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from jobs.common.constitution import Principle
from jobs.common.generate_settings import JudgeSettings
from jobs.common.records import Comparison, Kind
from jobs.generate import wording_judge
from jobs.generate.ask import together
from jobs.generate.engine import Engine
from jobs.generate.requests import CHOICES, ChatRequest, Sampling, Step, Turn
from jobs.generate.verdict import TIE_BAND, by_grades, clamped, expected_grade, mean_in_log_odds, side, verdict

VERDICT_TOKENS, REASONING_TOKENS = 8, 256
"""Longest verdict, without and with reasons."""
FIRST_TOKEN = 1
"""For the embedded model, which may write a sentence instead: the probabilities of the first token say enough."""


class Asked(Protocol):
    """What the judge needs of a prompt: RedTeamPrompt, Revision and PreferencePair all fit."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def prompt(self) -> str:
        """The user message."""

    @property
    def kind(self) -> Kind:
        """Red-team prompt or benign twin: what makes an answer the better one."""


@dataclass(frozen=True)
class Named:
    """One answer and what it is called in comparisons.jsonl; the judge sees the text alone."""

    name: str
    text: str


@dataclass(frozen=True)
class Judge:
    """Compares answers."""

    engine: Engine
    settings: JudgeSettings
    tries: int
    """Replies asked for one verdict before it counts as unreadable."""
    seed: int

    async def compare(
        self, prompt: Asked, principle: Principle, first: Named, second: Named, lane: int = 0
    ) -> Comparison:
        """Compare two answers in both orders.

        Raises:
            RefusedError: the endpoint refuses to judge them.
            UnavailableError: the endpoint cannot be used at all.
        """
        think = self.settings.reasoning
        orders = ((first.text, second.text), (second.text, first.text))
        turns = [
            wording_judge.compare_turns(principle, prompt.prompt, order, prompt.kind, think=think) for order in orders
        ]
        one, other = await self._each("judge", turns, lane)
        shown_first = self._probability(one, "A")
        shown_second = self._probability(other, "B")
        readable = shown_first is not None and shown_second is not None
        return Comparison(
            id=prompt.id,
            principle_id=principle.id,
            first=first.name,
            second=second.name,
            first_probability=mean_in_log_odds(shown_first or 0.5, shown_second or 0.5) if readable else None,
            shown_first=shown_first,
            shown_second=shown_second,
            verdict=verdict(shown_first, shown_second, "mean" if self.settings.rule == "mean" else "both_orders"),
            model=self.engine.endpoint.model,
            prompt_version=wording_judge.JUDGE_VERSION,
        )

    async def alone(
        self, prompt: Asked, principle: Principle, first: Named, second: Named, lane: int = 0
    ) -> Comparison:
        """Grade two answers each by itself, from 1 to 5, so that no order can matter; `shown_*` stay None.

        Raises:
            RefusedError: the endpoint refuses to grade them.
            UnavailableError: the endpoint cannot be used at all.
        """
        turns = [wording_judge.grade_turns(principle, prompt.prompt, one.text, prompt.kind) for one in (first, second)]
        one, other = await self._each("grade", turns, lane)
        probability = by_grades(expected_grade(one), expected_grade(other)) if one and other else None
        return Comparison(
            id=prompt.id,
            principle_id=principle.id,
            first=first.name,
            second=second.name,
            first_probability=probability,
            shown_first=None,
            shown_second=None,
            verdict="unreadable" if probability is None else side(probability, TIE_BAND),
            method="alone",
            model=self.engine.endpoint.model,
            prompt_version=wording_judge.JUDGE_VERSION,
        )

    async def _each(
        self, step: Step, both: list[tuple[Turn, ...]], lane: int
    ) -> tuple[dict[str, float] | None, dict[str, float] | None]:
        if self.engine.endpoint.is_embedded:  # one after the other: the lane's server still holds how they begin
            return await self._chances(step, both[0], lane), await self._chances(step, both[1], lane)
        one, other = await together([self._chances(step, asked, lane) for asked in both])
        return one, other

    def _probability(self, chances: dict[str, float] | None, letter: str) -> float | None:
        if chances is None:
            return None
        return clamped(chances[letter]) if self.settings.reasoning else chances[letter]

    async def _chances(self, step: Step, turns: tuple[Turn, ...], lane: int) -> dict[str, float] | None:
        """The probability of each choice; None where no reply could be read."""
        think = self.settings.reasoning and step == "judge"
        short = FIRST_TOKEN if self.engine.endpoint.is_embedded else VERDICT_TOKENS
        request = ChatRequest(
            step=step,
            turns=turns,
            max_tokens=REASONING_TOKENS if think else short,
            sampling=Sampling(0.0, 1.0, self.seed),
            prompt_version=wording_judge.JUDGE_VERSION,
            choices=CHOICES[step],
            lane=lane,
        )
        for sample_index in range(self.tries):
            reply = await self.engine.ask(replace(request, sample_index=sample_index))
            # Reasons that were cut off have no verdict yet; a letter in them is none.
            if reply.choice and not (think and reply.finish_reason == "length"):
                return reply.choice
        return None
