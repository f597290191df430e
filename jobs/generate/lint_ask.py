"""How the constitution linter asks: one letter, one text or a few texts, each from the journal where it was paid."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from jobs.generate.engine import Engine
from jobs.generate.replies import Text, read_prompts, read_text
from jobs.generate.requests import ChatRequest, Sampling, Schema, Turn
from jobs.generate.wording_lint import LETTERS, PROMPT_VERSION

LETTER_TOKENS = 16
"""Room for one letter; a chatty model may put it into a short sentence."""
TEXT_TOKENS = 200
EXAMPLE_TOKENS = 500
_LETTER = re.compile(
    r"^\W*(?:(?i:the\s+)?(?i:answer|option)(?i:\s+is)?\W+)?(?:([B-D])\b|(A)\b(?!\s+[a-z]))|^\W*([A-Da-d])\W*$"
)
"""A letter at the start of a reply; an A before a small word is an article."""


@dataclass(frozen=True)
class Asker:
    """One teacher and how it is asked."""

    engine: Engine
    sampling: Sampling
    """For texts; a letter is asked at temperature 0 first."""
    tries: int

    async def letter(self, turns: tuple[Turn, ...], options: int, lane: int) -> str | None:
        """The letter chosen among so many options, or None where no try gave one.

        Raises:
            RefusedError: the endpoint refuses the request.
            UnavailableError: the endpoint cannot be used at all.
        """
        request = self._request(turns, LETTER_TOKENS, None, lane)
        most_likely = Sampling(0.0, 1.0, self.sampling.seed)
        for sample_index in range(self.tries):
            sampling = self.sampling if sample_index else most_likely  # asked alike, the same reply would come again
            reply = await self.engine.ask(replace(request, sampling=sampling, sample_index=sample_index))
            if found := read_letter(reply.text, options):
                return found
        return None

    async def text(
        self, turns: tuple[Turn, ...], schema: Schema, lane: int, usable: Callable[[str], bool] = lambda _: True
    ) -> str | None:
        """One usable text, on one line, or None where no try gave one."""
        request = self._request(turns, TEXT_TOKENS, schema, lane)
        for sample_index in range(self.tries):
            reply = await self.engine.ask(replace(request, sample_index=sample_index))
            found = read_text(reply, schema, trim=self.engine.endpoint.is_embedded)
            if isinstance(found, Text) and usable(text := " ".join(found.text.split())):
                return text
        return None

    async def texts(self, turns: tuple[Turn, ...], schema: Schema, wanted: int, lane: int) -> list[str] | None:
        """Exactly so many texts, or None where no try gave them."""
        request = self._request(turns, EXAMPLE_TOKENS, schema, lane)
        for sample_index in range(self.tries):
            reply = await self.engine.ask(replace(request, sample_index=sample_index))
            found = read_prompts(reply, wanted)
            if len(found) == wanted and len(set(found)) == wanted:
                return found
        return None

    def _request(self, turns: tuple[Turn, ...], max_tokens: int, schema: Schema | None, lane: int) -> ChatRequest:
        return ChatRequest(
            step="lint",
            turns=turns,
            max_tokens=max_tokens,
            sampling=self.sampling,
            prompt_version=PROMPT_VERSION,
            schema=schema,
            lane=lane,
        )


def read_letter(text: str, options: int) -> str | None:
    """The letter a reply chose among the first so many of A to D, or None."""
    match = _LETTER.match(text.strip())
    letter = next(filter(None, match.groups()), "").upper() if match else ""
    return letter if letter and letter in LETTERS[:options] else None
