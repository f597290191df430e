"""Rewrites that bring the two sides of a pair to one length, so that length tells nothing about which is better.

target_words(row_id, rejected)          # so many words, a little above or below the rejected side
await rewriter.to_length(prompt, answer, principle, Wish(words))
await rewriter.minimal_edit(prompt, chosen, principle)
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from jobs.common.constitution import Principle
from jobs.common.generate_settings import GenerateSettings
from jobs.generate import wording_rewrite
from jobs.generate.ask import ask_text
from jobs.generate.engine import Engine
from jobs.generate.judge import Asked
from jobs.generate.replies import Text
from jobs.generate.requests import ChatRequest, Sampling, Schema, Step, Turn

NEAR = 0.1
"""The two sides differ in length by no more than this share of the rejected side's words."""
LEAST_WORDS = 2
"""Or by so many words where that is more: of ten words, a tenth is too fine to hit."""


@dataclass(frozen=True)
class Wish:
    """What a rewrite should be like."""

    words: int
    avoid_opening: str = ""
    """First words it must not have; empty where any will do."""
    sample_index: int = 0
    """Which repeat of the same request, from 0."""


@dataclass(frozen=True)
class Rewriter:
    """Asks the teacher for rewrites; one request each, under the sample index it is given."""

    engine: Engine
    settings: GenerateSettings
    sampling: Sampling

    async def to_length(self, prompt: Asked, answer: str, principle: Principle, wish: Wish, lane: int = 0) -> Text:
        """The same answer in about so many words, with another opening where one is to be avoided.

        Raises:
            RefusedError: the endpoint refuses, or the reply cannot be used.
            UnavailableError: the endpoint cannot be used at all.
        """
        turns = wording_rewrite.length_turns(prompt.prompt, answer, principle, wish.words, wish.avoid_opening)
        return await self._ask("rewrite", turns, wording_rewrite.REWRITE, wish.sample_index, lane)

    async def minimal_edit(
        self, prompt: Asked, chosen: str, principle: Principle, *, sample_index: int = 0, lane: int = 0
    ) -> Text:
        """A rejected side: the chosen text with as little changed as makes it the worse answer.

        Raises:
            RefusedError: the endpoint refuses, or the reply cannot be used.
            UnavailableError: the endpoint cannot be used at all.
        """
        # As the chosen side of other pairs is rewritten: shorter where that one is to be longer.
        words = _near(len(chosen.split()), longer=not is_longer(prompt.id))
        turns = wording_rewrite.edit_turns(prompt.prompt, chosen, principle, prompt.kind, words)
        return await self._ask("edit", turns, wording_rewrite.EDIT, sample_index, lane)

    async def _ask(self, step: Step, turns: tuple[Turn, ...], schema: Schema, sample_index: int, lane: int) -> Text:
        request = ChatRequest(
            step=step,
            turns=turns,
            max_tokens=self.settings.response_tokens,
            sampling=self.sampling,
            prompt_version=wording_rewrite.REWRITE_VERSION,
            schema=schema,
            sample_index=sample_index,
            lane=lane,
        )
        return await ask_text(self.engine, request, tries=1)


def is_longer(row_id: str) -> bool:
    """Whether the chosen side of this row is to be the longer one: half of all rows, by their id alone."""
    return hashlib.sha256(f"length:{row_id}".encode()).digest()[0] % 2 == 0


def target_words(row_id: str, rejected: str) -> int:
    """Words the chosen side should have: half of `NEAR` above or below the rejected side, by the row's id."""
    return _near(len(rejected.split()), longer=is_longer(row_id))


def word_bounds(row_id: str, rejected: str) -> tuple[int, int]:
    """Fewest and most words of a chosen side that is balanced: within `NEAR` and on the row's own side."""
    words = len(rejected.split())
    room = max(LEAST_WORDS, int(NEAR * words))
    return (words, words + room) if is_longer(row_id) else (max(1, words - room), words)


def _near(words: int, *, longer: bool) -> int:
    room = max(1, round(NEAR * words / 2))
    return words + room if longer else max(1, words - room)
