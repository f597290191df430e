"""Which requests generate will make and how many tokens they take: at least, likely and at most.

Turns are the real ones, built from the constitution by `wording.py`, with nothing where a text is still unknown; the
unknown texts are added by their length. At least: every reply is usable and as short as a filter lets through. At
most: every request for prompts and every try is used, and every reply runs into its limit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Literal

from jobs.common.constitution import Constitution
from jobs.common.settings import Recipe
from jobs.generate import wording
from jobs.generate.plan_habits import Habits
from jobs.generate.requests import Schema, Turn
from jobs.generate.tokens import load_tokenizer, most_prompt_tokens, schema_text

LEAST_PROMPT_TOKENS = 4
"""A prompt has at least five words; the first may share a token with what stands before it."""
OTHER_VOCABULARY = 0.5
"""Least share of SmolLM2's count that a model with a larger vocabulary needs."""
BYTES_PER_TOKEN = 4
"""Tokens that another model may read at most where one wrote a single token."""


@dataclass(frozen=True)
class Span:
    """A figure at least, likely and at most."""

    least: float = 0.0
    likely: float = 0.0
    most: float = 0.0

    def __add__(self, other: Span) -> Span:
        return Span(self.least + other.least, self.likely + other.likely, self.most + other.most)

    def __mul__(self, other: Span) -> Span:
        return Span(self.least * other.least, self.likely * other.likely, self.most * other.most)

    @property
    def parts(self) -> tuple[float, float, float]:
        """The three figures."""
        return self.least, self.likely, self.most


@dataclass(frozen=True)
class Asked:
    """Who is asked in a step."""

    by: Literal["teacher", "student"]
    """Whose section of the recipe says how: `teacher` or `initial`."""
    embedded: bool
    """Served inside the job, so nothing is charged."""
    smollm2: bool = False
    """Is the tokenizer here the very one we count with?"""
    schema: bool = False
    """May a schema be sent?"""


@dataclass(frozen=True)
class Step:
    """One row of the plan."""

    name: str
    asked: Asked
    requests: Span
    tokens_in: Span
    tokens_out: Span


@dataclass(frozen=True)
class Counting:
    """The steps of one recipe."""

    recipe: Recipe
    constitution: Constitution
    habits: Habits

    def steps(self) -> list[Step]:
        """Every step in the order of the stage; initial responses from a file take no request here."""
        return [self._prompts(), self._initial(), *self._critique_and_revision()]

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
        """Prompts that get a chain."""
        settings, principles = self.recipe.generate, len(self.constitution.principles)
        wanted = settings.prompts_per_principle
        room = settings.max_requests_per_principle * settings.prompts_per_request
        likely = min(wanted, room * self.habits.usable_prompts)
        return Span(principles * min(wanted, room), principles * likely, principles * wanted)

    def _prompts(self) -> Step:
        settings, asked = self.recipe.generate, self.teacher
        count, most = settings.prompts_per_request, settings.max_requests_per_principle
        schema = wording.PROMPTS if count > 1 else None
        least = min(most, ceil(settings.prompts_per_principle / count))
        likely = min(most, max(least, settings.prompts_per_principle / (count * self.habits.usable_prompts)))
        tokens_in = Span()
        for principle in self.constitution.principles:
            every = [
                self._read(wording.prompts_turns(principle, self.constitution, count, index), schema, asked)
                for index in range(min(most, len(wording.ANGLES)))
            ]
            tokens_in += Span(
                sum(every[index % len(every)].least for index in range(least)),
                sum(one.likely for one in every) / len(every) * likely,
                sum(every[index % len(every)].most for index in range(most)),
            )
        principles = len(self.constitution.principles)
        requests = Span(principles * least, principles * likely, principles * most)
        written = requests.likely * self.habits.written["prompts"]
        least_written = self.prompts_wanted.least * LEAST_PROMPT_TOKENS
        tokens_out = Span(least_written, max(least_written, written), requests.most * settings.prompt_tokens)
        return Step("red-team prompts", asked, requests, tokens_in, tokens_out)

    def _initial(self) -> Step:
        name, asked = "initial responses", self.student
        if self.recipe.initial.endpoint == "file":
            return Step(name, asked, Span(), Span(), Span())
        invented, prompt = asked == self.teacher and self.recipe.initial.endpoint == "teacher", self._text("prompt")
        each = self._mean(
            self._read(wording.invented_turns("", principle), wording.RESPONSE, asked)
            if invented
            else self._read(wording.initial_turns(""), None, asked)
            for principle in self.constitution.principles
        )
        return self._chain_step(name, asked, each + self._as_read(prompt, "teacher", asked), "initial")

    def _critique_and_revision(self) -> list[Step]:
        asked, steps = self.teacher, []
        before = wording.demonstration_turns(self.constitution, self.recipe.generate.few_shot)
        known = self._text("prompt") + self._as_read(self._text("initial"), self.student.by, asked)
        each = self._mean(
            self._read(wording.critique_turns(before, "", "", principle), wording.CRITIQUE, asked)
            for principle in self.constitution.principles
        )
        steps.append(self._chain_step("critiques", asked, each + known, "critique"))
        each = self._mean(
            self._read(
                wording.revision_turns(wording.critique_turns(before, "", "", principle), "", principle),
                wording.REVISION,
                asked,
            )
            for principle in self.constitution.principles
        )
        known += self._text("critique")
        return [*steps, self._chain_step("revisions", asked, each + known, "revision")]

    def _chain_step(self, name: str, asked: Asked, each: Span, kind: str) -> Step:
        tries = Span(1, min(self.habits.tries, self.recipe.generate.tries), self.recipe.generate.tries)
        requests = self.prompts_wanted * tries
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

    def _read(self, turns: tuple[Turn, ...], schema: Schema | None, asked: Asked) -> Span:
        shown = schema if asked.schema else None
        tokenizer = load_tokenizer()
        counted = tokenizer.prompt_tokens(turns, default_system=asked.smollm2)
        likely = counted + (tokenizer.count(schema_text(shown)) if shown else 0)
        least = counted if asked.smollm2 else counted * OTHER_VOCABULARY
        return Span(least, likely, most_prompt_tokens(turns, shown))

    def _mean(self, spans: Iterable[Span]) -> Span:
        """The same number of chains belongs to every principle."""
        found = list(spans)
        return sum(found, Span()) * Span(*[1 / len(found)] * 3)
