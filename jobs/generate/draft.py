"""Fill in a constitution's missing requests through the recipe's teacher: `cai constitution draft FILE`.

Only lines are added (or an empty value is replaced); every other byte of the file stays as it is. What was written is
printed, so that a person can read it before it steers a run.
"""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from jobs.common.console import say
from jobs.common.constitution import Principle, read_constitution
from jobs.common.errors import DataError
from jobs.common.stage import RunContext
from jobs.generate import wording
from jobs.generate.ask import together
from jobs.generate.breaker import Run
from jobs.generate.draft_file import Insertion, insert_requests
from jobs.generate.endpoint import Endpoint
from jobs.generate.engine import Engine, RefusedError, open_engine
from jobs.generate.journal import Journal, open_journal
from jobs.generate.opening import open_endpoints
from jobs.generate.replies import Text, read_text
from jobs.generate.requests import ChatRequest, Sampling
from jobs.generate.signals import run_until_stopped

Field = Literal["critique_request", "revision_request"]
FIELDS: tuple[Field, Field] = ("critique_request", "revision_request")
REQUEST_TOKENS = 160
"""Longest drafted request, in tokens."""
WORDS = (6, 90)
"""Shortest and longest request, in words."""
CHANGE = re.compile(
    r"\b(rewrit|revis|chang|replac|remov|add|writ|correct|amend|rephras|rework|improv|adjust)\w*", re.IGNORECASE
)
TALK = re.compile(r"^(here|sure|certainly|of course|request:|critique|revision request)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Missing:
    """One request to draft."""

    index: int
    """Position of the principle in the file."""
    principle: Principle
    field: Field


def draft(file: Path, context: RunContext) -> None:
    """Draft what is missing and write the file back.

    Raises:
        ConfigError: the file is no constitution, or the teacher's key or weights are missing.
        DataError: the teacher gave no usable text for some requests; the others are written.
        UnavailableError: the teacher cannot be used; nothing is written.
    """
    constitution, _ = read_constitution(file)
    missing = [
        Missing(index, principle, name)
        for index, principle in enumerate(constitution.principles)
        for name in FIELDS
        if not getattr(principle, name)
    ]
    if not missing:
        say(f"{file}: all {len(constitution.principles)} principles have both requests; nothing to draft")
        return
    say(f"{file}: {len(missing)} requests are missing; asking {context.recipe.teacher.model} for them")
    with closing(open_journal(context.journal)) as journal, open_endpoints(context, with_student=False) as endpoints:
        rerun = f"cai constitution draft {file}"
        texts = run_until_stopped(_draft_all(missing, endpoints.teacher, journal, context, rerun), rerun)
    _write(file, list(zip(missing, texts, strict=True)))


def _write(file: Path, found: list[tuple[Missing, str | None]]) -> None:
    insert_requests(file, [Insertion(one.index, one.field, text) for one, text in found if text])
    for one, text in found:
        say(f"{'+' if text else '!'} {one.principle.id}.{one.field}: {text or 'no usable text'}")
    left = sum(text is None for _, text in found)
    if left:
        raise DataError(
            f"{file}: {left} of {len(found)} requests could not be drafted. "
            f"Write them by hand, or use a stronger teacher.model."
        )
    say(f"{file}: {len(found)} requests added. Read them, then run: cai constitution check {file}")


async def _draft_all(
    missing: list[Missing], endpoint: Endpoint, journal: Journal, context: RunContext, rerun: str
) -> list[str | None]:
    settings = context.recipe.teacher
    sampling = Sampling(settings.temperature, settings.top_p, context.recipe.seed)
    async with open_engine(endpoint, settings, journal, Run("", rerun)) as engine:
        tries = context.recipe.generate.tries
        return await together([_draft_one(one, engine, sampling, tries, lane) for lane, one in enumerate(missing)])


async def _draft_one(one: Missing, engine: Engine, sampling: Sampling, tries: int, lane: int) -> str | None:
    request = ChatRequest(
        step="draft",
        turns=wording.draft_turns(one.principle, one.field),
        max_tokens=REQUEST_TOKENS,
        sampling=sampling,
        prompt_version=wording.PROMPT_VERSION,
        schema=wording.REQUEST,
        lane=lane,
    )
    for sample_index in range(tries):
        try:
            reply = await engine.ask(replace(request, sample_index=sample_index))
        except RefusedError:
            return None
        found = read_text(reply, request.schema, trim=False)
        if isinstance(found, Text) and (text := usable_request(found.text, one.field)):
            return text
    return None


def usable_request(text: str, field: Field) -> str | None:
    """The request as one paragraph, or None where it is too short or long, talks about itself or asks for no change."""
    text = " ".join(text.split()).strip("\"'“”*` ")
    if not WORDS[0] <= len(text.split()) <= WORDS[1] or TALK.match(text) or not text.isprintable():
        return None
    if field == "revision_request" and not CHANGE.search(text):
        return None
    return text
