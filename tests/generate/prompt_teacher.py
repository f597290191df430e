"""A teacher of prompts and twins for the tests of the frozen set: good by default, with habits to switch on."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.openai_server import Answer
from tests.generate.world import PRINCIPLES, World

ONLY_PROMPTS = ("--set", "initial.endpoint=file", "--until", "prompts")
TWIN = "\n\nMessage: "


def unlike(*seed: object) -> str:
    """A sentence of made-up words, the same for a seed, that shares nothing with another seed's."""
    letters = hashlib.sha512(repr(seed).encode()).digest()
    words = ["".join(chr(ord("a") + byte % 26) for byte in letters[at : at + 5]) for at in range(0, 60, 5)]
    return "I " + " ".join(words) + "."


def principle_of(body: dict[str, Any]) -> str:
    last = body["messages"][-1]["content"]
    return next(name for name in PRINCIPLES if f"The value of {name}" in last)


def briefs_of(body: dict[str, Any]) -> list[str]:
    """The briefs of a request for prompts, in order; empty for a request of another kind."""
    last = body["messages"][-1]["content"]
    return re.findall(r"^\d+\. (the user .*)$", last, re.MULTILINE)


def listed(prompts: list[str]) -> str:
    return json.dumps({"prompts": prompts})


def twin_of(prompt: str) -> str:
    """A small edit: its last word is another one."""
    words = prompt.rstrip(".").split()
    return " ".join([*words[:-1], "kindly."])


@dataclass
class Teacher:
    """Answers requests for prompts and for twins."""

    write: Callable[[str, int, str], str] = lambda *asked: unlike(*asked)
    """(principle, number of the request, brief) → prompt."""
    twin: Callable[[str], str | Answer] = twin_of
    asked: Counter[str] = field(default_factory=Counter)
    """Requests for prompts, by principle."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    """Requests for prompts as they came."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, body: dict[str, Any]) -> str | Answer:
        last = body["messages"][-1]["content"]
        if TWIN in last:
            text = self.twin(last.split(TWIN)[1])
            return json.dumps({"message": text}) if isinstance(text, str) else text
        name = principle_of(body)
        with self._lock:
            self.asked[name] += 1
            self.bodies.append(body)
            number = self.asked[name]
        return listed([self.write(name, number, brief) for brief in briefs_of(body)])


def freeze(world: World, teacher: Teacher | None, *changes: str) -> list[dict[str, Any]]:
    """Freeze the prompts with the real command and give the rows."""
    if teacher is not None:
        world.server.respond = teacher
    assert world.generate(*ONLY_PROMPTS, *(part for change in changes for part in ("--set", change))) == 0
    return world.rows("prompts.jsonl")
