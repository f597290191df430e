"""A teacher, a student and a judge of known habits, as one responder of the fake endpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.openai_server import Answer, plausible, sentence

GOOD = "honestly"
"""A word the judge likes: revisions hold it."""

FIRST_TRY = "Perhaps so:"

Taste = Callable[[str, str], float]
"""Texts of A and B → probability that the judge writes A."""


def fair(first: str, second: str) -> float:
    """Likes the text with more good words."""
    difference = first.count(GOOD) - second.count(GOOD)
    return 0.5 if difference == 0 else 0.8 if difference > 0 else 0.2


def always_a(first: str, second: str) -> float:
    """Likes what it sees first."""
    return 0.9


def no_taste(first: str, second: str) -> float:
    """Sees no difference."""
    return 0.52


def contrary(first: str, second: str) -> float:
    """Likes the text with fewer good words."""
    return 1.0 - fair(first, second)


def text_of(seed: str, words: int, good: int = 0) -> str:
    """So many words in sentences of at most ten, `good` of them good ones."""
    found: list[str] = [GOOD] * good
    number = 0
    while len(found) < words:
        found += sentence(f"{seed}{number}", 9)[:-1].split()[1:]
        number += 1
    found = found[:words]
    return " ".join(word + ("." if index % 10 == 9 or index == words - 1 else "") for index, word in enumerate(found))


@dataclass
class Scripted:
    """Answers by what is asked; set it as `server.respond`."""

    taste: Taste = fair
    student_words: int = 40
    revision_words: int = 40
    obeys: bool = True
    """Does a rewrite have the length that was asked for?"""
    edits: bool = True
    """Does a minimal edit change anything?"""
    good_from_round: int = 1
    """Revisions before this round are no better than the initial response."""
    judge_letters: str = "AB"
    """What the judge writes: another word cannot be read."""
    gives_logprobs: bool = True
    student: Callable[[dict[str, Any]], str] | None = None
    asked: list[str] = field(default_factory=list)
    """Kinds of the requests, in their order."""

    def __call__(self, body: dict[str, Any]) -> str | Answer:
        last = str(body["messages"][-1]["content"])
        schema = body.get("response_format", {}).get("json_schema", {})
        kind, answer = self._answer(body, last)
        self.asked.append(kind)
        if isinstance(answer, Answer):
            return answer
        return json.dumps({schema["name"]: answer}) if schema and kind != "prompts" else answer

    def _answer(self, body: dict[str, Any], last: str) -> tuple[str, str | Answer]:
        seed = json.dumps(body["messages"]) + str(body.get("seed"))
        if "different messages" in last:
            return "prompts", plausible(body)
        if judged := re.search(r"Answer A:\n(.*)\n\nAnswer B:\n(.*?)\n\n", last, re.DOTALL):
            return "judge", self._judged(judged[1], judged[2], body)
        if wanted := re.search(r"Rewrite the answer in (\d+) words", last):
            return "rewrite", text_of(seed, int(wanted[1]) if self.obeys else self.revision_words, good=3)
        if wanted := re.search(r"The result has (\d+) words", last):
            good = re.search(r"words long:\n(.*?)\n\n", last, re.DOTALL)
            assert good
            return "edit", text_of(seed, int(wanted[1])) if self.edits else good[1]
        if last.startswith("Where does"):
            return "critique", sentence(seed)
        if last.startswith("Rewrite the answer with"):
            return "revision", self._revision(seed, str(body["messages"][1]["content"]))
        return "initial", self.student(body) if self.student else text_of(seed, self.student_words)

    def _revision(self, seed: str, about: str) -> str:
        """A better answer than the one it is about; before `good_from_round` it is only marked as a first try."""
        if self.good_from_round == 2 and not about.startswith(FIRST_TRY):
            return f"{FIRST_TRY} {text_of(seed, self.revision_words - 2)}"
        return text_of(seed, self.revision_words, good=3)

    def _judged(self, first: str, second: str, body: dict[str, Any]) -> Answer:
        chance = self.taste(first, second)
        letters = self.judge_letters
        if letters != "AB":
            return Answer(content=letters)
        chances = {"A": chance, "B": 1 - chance} if self.gives_logprobs else {}
        return Answer(content="A" if chance > 0.5 else "B", chances=chances)
