"""A principle's wanted prompts: which of them are there, which are still asked for, and when asking ends."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from jobs.common.constitution import Principle
from jobs.common.generate_settings import GenerateSettings
from jobs.common.records import Kind, record_id
from jobs.generate.briefs import Brief
from jobs.generate.journal_records import Reply
from jobs.generate.replies import read_prompts

EMPTY_WAVES, EMPTY_PROMPTS = 2, 6
"""A teacher gives no more when so many waves in a row, and so many prompts asked for in them, gave none to accept."""

_NUMBERED = re.compile(r"^\s*\(?(\d{1,3})[.):]\s*\S", re.MULTILINE)


@dataclass(frozen=True)
class Draft:
    """An accepted prompt before it has a split."""

    principle_id: str
    prompt: str
    sample_index: int
    brief: Brief
    kind: Kind = "red_team"
    twin_of: str = ""

    @property
    def id(self) -> str:
        """Id of everything that descends from it."""
        return record_id(self.principle_id, self.prompt)


@dataclass(frozen=True)
class Asked:
    """One request for prompts: which briefs it holds."""

    index: int
    """Number of the request for its principle, from 0."""
    numbers: tuple[int, ...]
    """Places of its briefs in `Slots.briefs`."""


@dataclass
class Slots:
    """The briefs of one principle and the prompts that fill them."""

    principle: Principle
    briefs: Sequence[Brief]
    filled: dict[int, Draft] = field(default_factory=dict)
    """Accepted prompts by the place of their brief."""
    asked: Counter[int] = field(default_factory=Counter)
    """How often each brief was asked for."""
    requests: int = 0
    """Requests made so far."""
    empty_waves: int = 0
    """Waves since a prompt was accepted."""
    empty_prompts: int = 0
    """Prompts asked for since one was accepted."""

    @property
    def open(self) -> list[int]:
        """Places of the briefs without a prompt, those asked for least first: a hard one keeps no other waiting."""
        left = [number for number in range(len(self.briefs)) if number not in self.filled]
        return sorted(left, key=lambda number: (self.asked[number], number))

    @property
    def drafts(self) -> list[Draft]:
        """Accepted prompts in the order of their briefs."""
        return [self.filled[number] for number in sorted(self.filled)]

    @property
    def gave_up(self) -> bool:
        """Has the teacher stopped giving?"""
        return self.empty_waves >= EMPTY_WAVES and self.empty_prompts >= EMPTY_PROMPTS

    def next_wave(self, settings: GenerateSettings) -> list[Asked]:
        """The requests to make next, none of which sees another one's prompts; empty when asking ends.

        A teacher that is shown what exists should see most of it, and still 1,000 prompts must not take 200 round
        trips: a wave asks for as many prompts as there are, so each request was shown at least half of what is there
        when its reply comes. 40 prompts at 5 a request take 8 requests in 4 waves. One prompt at a time shows nothing,
        so that all are asked for at once.
        """
        size = settings.prompts_per_request
        if self.gave_up:
            return []
        left = self.open
        groups = [tuple(left[start : start + size]) for start in range(0, len(left), size)]
        at_once = len(groups) if size == 1 else max(1, len(self.filled) // size)
        room = settings.max_requests_per_principle - self.requests
        return [Asked(self.requests + place, group) for place, group in enumerate(groups[: max(0, min(at_once, room))])]

    def count(self, wave: Sequence[Asked], accepted: int) -> None:
        """Take note of a wave that is over."""
        self.requests += len(wave)
        self.asked.update(number for one in wave for number in one.numbers)
        self.empty_waves = 0 if accepted else self.empty_waves + 1
        self.empty_prompts = 0 if accepted else self.empty_prompts + sum(len(one.numbers) for one in wave)


def read_numbered(reply: Reply, asked: int) -> list[tuple[int, str]]:
    """The prompts of a reply with the place, from 0, of the brief each answers.

    The numbers of a list count where they rise and fit; a teacher that leaves one out must not shift all after it.
    Prompts beyond those asked for answer no brief and are left out.
    """
    prompts = read_prompts(reply, asked)
    numbers = [int(match[1]) for match in _NUMBERED.finditer(reply.text)]
    rising = all(one < other for one, other in pairwise(numbers))
    fit = len(numbers) >= len(prompts) and rising and numbers[:1] != [0]
    places = [number - 1 for number in numbers] if fit else list(range(len(prompts)))
    return [(place, _without_number(text)) for place, text in zip(places, prompts, strict=False) if place < asked]


def _without_number(text: str) -> str:
    """A teacher under a schema may number the strings of its list as well."""
    return re.sub(r"^\(?\d{1,3}[.):]\s+", "", text)
