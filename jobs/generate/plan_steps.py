"""Which requests generate will make and how many tokens they take: at least, likely and at most.

Turns are the real ones, built from the constitution by `wording.py`, with nothing where a text is still unknown; the
unknown texts are added by their length. At least: every reply is usable and as short as a filter lets through. At
most: every request for prompts and every try is used, and every reply runs into its limit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from jobs.common.constitution import Constitution, Principle
from jobs.common.records import Kind
from jobs.common.settings import Recipe
from jobs.generate import wording
from jobs.generate.plan_habits import Habits
from jobs.generate.plan_judged import Known, judge_steps, rounds_of
from jobs.generate.plan_prompts import LEAST_PROMPT_TOKENS, prompts_step, prompts_wanted, twins_step
from jobs.generate.plan_span import OTHER_VOCABULARY, Asked, Span, Step, read_tokens
from jobs.generate.requests import Turn
from jobs.generate.wording_twins import with_requests

BYTES_PER_TOKEN = 4
"""Tokens that another model may read at most where one wrote a single token."""


@dataclass(frozen=True)
class Counting:
    """The steps of one recipe."""

    recipe: Recipe
    constitution: Constitution
    habits: Habits

    def steps(self) -> list[Step]:
        """Every step in the order of the stage; initial responses from a file take no request here."""
        asked = (self.recipe, self.constitution, self.habits, self.teacher)
        twins = [twins_step(*asked)] if self.recipe.generate.benign_twins else []
        return [
            prompts_step(*asked),
            *twins,
            self._initial(),
            *self._critique_and_revision(),
            *judge_steps(self._known),
        ]

    @cached_property
    def _known(self) -> Known:
        prompt, initial = self._text("prompt"), self._as_read(self._text("initial"), self.student.by, self.teacher)
        answer = self._text("revision")
        return Known(self.recipe, self.constitution, self.teacher, self.prompts_wanted, prompt, initial, answer)

    @cached_property
    def teacher(self) -> Asked:
        """The teacher as the one who is asked."""
        embedded, structured = self.recipe.teacher.endpoint == "embedded", self.recipe.teacher.structured
        return Asked("teacher", embedded, embedded, structured == "on" or (structured == "auto" and not embedded))

    @cached_property
    def student(self) -> Asked:
        """Who is asked for initial responses."""
        initial = self.recipe.initial
        if initial.endpoint == "teacher":
            return self.teacher
        embedded = initial.endpoint == "embedded"
        return Asked("student", embedded, embedded and initial.gguf_repo is None)

    @cached_property
    def prompts_wanted(self) -> Span:
        """Red-team prompts and twins that get a chain."""
        return prompts_wanted(self.recipe, self.constitution, self.habits)

    def _initial(self) -> Step:
        name, asked = "initial responses", self.student
        if self.recipe.initial.endpoint == "file":
            return Step(name, asked, Span(), Span(), Span())
        invented, prompt = asked == self.teacher and self.recipe.initial.endpoint == "teacher", self._text("prompt")
        each = self._mean(
            read_tokens(wording.invented_turns("", principle), wording.RESPONSE, asked)
            if invented
            else read_tokens(wording.initial_turns(""), None, asked)
            for principle in self.constitution.principles
        )
        each += self._as_read(prompt, "teacher", asked)
        return self._chain_step(name, asked, each, "initial", Span(*[self.recipe.initial.samples] * 3))

    def _critique_and_revision(self) -> list[Step]:
        asked = self.teacher
        before = wording.demonstration_turns(self.constitution, self.recipe.generate.few_shot)
        known = self._text("prompt") + self._as_read(self._text("initial"), self.student.by, asked)
        rounds = rounds_of(self.recipe)

        def critique(principle: Principle, kind: Kind) -> tuple[Turn, ...]:
            return wording.critique_turns(before, "", "", with_requests(principle, kind))

        def revision(principle: Principle, kind: Kind) -> tuple[Turn, ...]:
            return wording.revision_turns(critique(principle, kind), "", with_requests(principle, kind))

        each = self._known.mean(critique, wording.CRITIQUE)
        steps = [self._chain_step("critiques", asked, each + known, "critique", rounds)]
        each = self._known.mean(revision, wording.REVISION)
        known += self._text("critique")
        return [*steps, self._chain_step("revisions", asked, each + known, "revision", rounds)]

    def _chain_step(self, name: str, asked: Asked, each: Span, kind: str, times: Span) -> Step:
        tries = Span(1, min(self.habits.tries, self.recipe.generate.tries), self.recipe.generate.tries)
        requests = self.prompts_wanted * tries * times
        return Step(name, asked, requests, requests * each, requests * self._text(kind))

    def _text(self, kind: str) -> Span:
        """Tokens of a text as its writer counts them."""
        settings = self.recipe.generate
        if kind == "prompt":
            likely = min(settings.prompt_tokens, self.habits.prompt_tokens)
            return Span(LEAST_PROMPT_TOKENS, max(LEAST_PROMPT_TOKENS, likely), settings.prompt_tokens)
        most = settings.critique_tokens if kind == "critique" else settings.response_tokens
        return Span(1, max(1, self.habits.written[kind]), most)

    def _as_read(self, text: Span, writer: Literal["teacher", "student"], reader: Asked) -> Span:
        """The same text as the one who is asked counts it: a stranger's tokenizer may split it further."""
        return text if writer == reader.by else text * Span(OTHER_VOCABULARY, 1, BYTES_PER_TOKEN)

    def _mean(self, spans: Iterable[Span]) -> Span:
        """The same number of chains belongs to every principle."""
        found = list(spans)
        return sum(found, Span()) * Span(*[1 / len(found)] * 3)
