"""What the plan counts in: figures at least, likely and at most; who is asked; one row for each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jobs.generate.requests import Schema, Turn
from jobs.generate.tokens import load_tokenizer, most_prompt_tokens, schema_text

OTHER_VOCABULARY = 0.5
"""Least share of SmolLM2's count that a model with a larger vocabulary needs."""


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


def read_tokens(turns: tuple[Turn, ...], schema: Schema | None, asked: Asked) -> Span:
    """Tokens of a request as the one who is asked counts them."""
    shown = schema if asked.schema else None
    tokenizer = load_tokenizer()
    counted = tokenizer.prompt_tokens(turns, default_system=asked.smollm2)
    likely = counted + (tokenizer.count(schema_text(shown)) if shown else 0)
    least = counted if asked.smollm2 else counted * OTHER_VOCABULARY
    return Span(least, likely, most_prompt_tokens(turns, shown))
