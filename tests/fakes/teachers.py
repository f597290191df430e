"""Teachers of known habits: student, teacher and judge in one script that reads the request and answers at once.

    with FakeServer(ScriptedTeacher(constitution, "length_biased")) as server: ...

The same request always gets the same reply. What a request is, and what is in it, is read with patterns made of our own
wording, so that a changed word changes nothing here. Asked by itself for a rewrite, a minimal edit or a grade, every
teacher does so for most rows; a few rows it never gets right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from jobs.common.constitution import Constitution, Principle
from jobs.common.records import Kind
from jobs.generate import wording_judge, wording_prompts, wording_rewrite
from jobs.generate.requests import Turn
from jobs.generate.wording_twins import with_requests
from tests.fakes import teacher_texts as texts
from tests.fakes.teacher_texts import (
    NAMES,
    PEOPLE,
    PLACES,
    drawn,
    follows,
    share,
    ways_of,
    write_answer,
    write_prompt,
)

Habit = Literal["good", "length_biased", "refusing", "duplicating", "echoing", "position_biased", "preaching"]
HABITS: tuple[Habit, ...] = get_args(Habit)
STUDENT = "fake-student"
KINDS: tuple[Kind, ...] = get_args(Kind)

PLAIN_WORDS, LONG_WORDS = 45, 110
STUBBORN, COMPLIES = 0.06, 0.85
"""Share of prompts whose rows never come right, and share of requests about the others that are answered as asked."""
ECHOES = 0.4
"""Share of prompts whose revision an echoing teacher spoils."""
BIASED = 0.85
"""Share of prompts at which a position-biased judge says A whatever it reads."""
SERMON = (
    "Respect for everyone matters here.",
    "Let dignity and respect guide everyone.",
    "Dignity matters, so respect everyone.",
)
"""What a preaching teacher ends with: the words of a style, whatever was asked."""
PROMPTS = 12
"""Prompts in one reply; more than asked for does no harm."""

_MARK = "\x00{}\x00"
_PRINCIPLE = Principle(
    id="marked",
    title=_MARK.format("title"),
    text=_MARK.format("text"),
    category="x",
    source="x",
)
_WORDS = 987_654_321


@dataclass
class ScriptedTeacher:
    """Answers chat bodies; give it to a FakeServer."""

    constitution: Constitution
    habit: Habit = "good"

    @cached_property
    def _critiques(self) -> set[str]:
        return {with_requests(one, kind).critique_request for one in self.constitution.principles for kind in KINDS}

    @cached_property
    def _revisions(self) -> set[str]:
        return {with_requests(one, kind).revision_request for one in self.constitution.principles for kind in KINDS}

    def __call__(self, body: dict[str, Any]) -> str:
        """The assistant's text."""
        schema = body.get("response_format", {}).get("json_schema", {}).get("name", "")
        if schema == wording_prompts.PROMPTS.name:
            return json.dumps({schema: self._prompts(body)})
        text = self._text(body)
        return json.dumps({schema: text}) if schema else text

    def _text(self, body: dict[str, Any]) -> str:
        last, messages = _last(body), body["messages"]
        if last in self._critiques:
            return _critique(messages[-2]["content"], messages[-3]["content"])
        if last in self._revisions:
            prompt = next(turn["content"] for turn in messages if turn["role"] == "user")
            return self._revision(prompt, messages[-2]["content"], last, body["seed"])
        for pattern, answer in _PATTERNS:
            if match := pattern.fullmatch(last):
                return answer(self, match.groupdict(), body["seed"])
        ways = ways_of(last)
        if ways is None or body["model"] != STUDENT:
            raise ValueError(f"the script has no answer to {last!r}")
        return write_answer(ways[1], _length(last, body["seed"]), "student", last, body["seed"])

    def _prompts(self, body: dict[str, Any]) -> list[str]:
        prompts = [write_prompt(body["seed"], _last(body), index) for index in range(PROMPTS)]
        if self.habit == "duplicating":
            prompts[1::3] = [near_copy(prompt) for prompt in prompts[0::3]]
        return prompts

    def _revision(self, prompt: str, critique: str, asked: str, seed: int) -> str:
        right, _ = _ways(prompt)
        long = self.habit == "length_biased"
        plain = write_answer(right, LONG_WORDS if long else _length(critique, seed), "revision", critique, seed)
        if self.habit == "refusing":
            return _refusal(prompt)
        if self.habit == "preaching":
            return f"{plain} {SERMON[int(len(SERMON) * share('sermon', prompt))]}"
        if self.habit == "echoing" and share("echo", prompt) < ECHOES:
            return (prompt, asked, "Revised response:", critique)[int(4 * share("kind", prompt))] + " " + plain
        return plain

    def _rewrite(self, found: dict[str, str], seed: int) -> str:
        prompt = found["prompt"]
        if _obeys(prompt, seed):
            return write_answer(_ways(prompt)[0], int(found["words"]), "rewrite", prompt, seed)
        return self._revision(prompt, found["answer"], "Give only the new answer.", seed)

    def _edit(self, found: dict[str, str], seed: int) -> str:
        chosen, (right, wrong) = found["answer"], _ways(found["prompt"])
        if not _obeys(found["prompt"], seed):
            return chosen
        edited = chosen.replace(right, wrong)
        return edited if edited != chosen else write_answer(wrong, int(found["words"]), "edit", chosen, seed)

    def _judge(self, found: dict[str, str], _: int) -> str:
        prompt = found["prompt"]
        if self.habit == "position_biased" and share("position", prompt) < BIASED:
            return "A"
        first, second = follows(prompt, found["first"]), follows(prompt, found["second"])
        return "A" if first > second or (first == second and share(found["first"]) < 0.5) else "B"

    def _grade(self, found: dict[str, str], _: int) -> str:
        return str(round(1 + 4 * follows(found["prompt"], found["answer"])))

    def _twin(self, found: dict[str, str], seed: int) -> str:
        # Another word in one of the ways: which of them is right is drawn anew, so that no answer tells the sibling's.
        way = _ways(found["prompt"])[0]
        kind = next(word for word in way.split() if word in texts.KINDS)
        other = drawn("twin", seed).choice([one for one in texts.KINDS if one != kind])
        return found["prompt"].replace(way, way.replace(kind, other))


def near_copy(prompt: str) -> str:
    """The same prompt in nearly the same words."""
    return prompt.rstrip(".?") + ", if I may ask."


def _critique(answer: str, prompt: str) -> str:
    right, wrong = _ways(prompt)
    draw = drawn("critique", answer)
    return f"Telling the {draw.choice(PEOPLE)} to {wrong} harms {draw.choice(NAMES)}; it should say to {right} instead."


def _refusal(prompt: str) -> str:
    draw = drawn("refusal", prompt)
    ask = f"Ask the {draw.choice(PEOPLE)} or {draw.choice(NAMES)} at the {draw.choice(PLACES)}"
    return f"I'm sorry, but I cannot help with that. {ask}, or call the {draw.choice(PEOPLE)}."


def _ways(prompt: str) -> tuple[str, str]:
    ways = ways_of(prompt)
    assert ways, f"no prompt of the script: {prompt!r}"
    return ways


def _length(*seed: object) -> int:
    return max(20, int(drawn("length", *seed).gauss(PLAIN_WORDS, 6)))


def _obeys(prompt: str, seed: int) -> bool:
    return share("stubborn", prompt) >= STUBBORN and share("complies", prompt, seed) < COMPLIES


def _last(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def _pattern(turns: tuple[Turn, ...]) -> re.Pattern[str]:
    """The last turn as a pattern: each mark becomes a group of its name, and the number of words one of digits."""
    text = re.escape(turns[-1].content).replace(str(_WORDS), r"(?P<words>\d+)")
    text = re.sub(r"\d+\\ words\\ long", r"\\d+\\ words\\ long", text)
    seen: set[str] = set()

    def group(match: re.Match[str]) -> str:
        name = match[1]
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        return f"(?P<{name}>.*?)"

    return re.compile(re.sub("(?:\\\\)?\x00(\\w+)(?:\\\\)?\x00", group, text), re.DOTALL)


Answerer = Callable[[ScriptedTeacher, dict[str, str], int], str]


def _patterns() -> list[tuple[re.Pattern[str], Answerer]]:
    prompt, answer, first, second = map(_MARK.format, ("prompt", "answer", "first", "second"))
    judge, rewrite = wording_judge, wording_rewrite
    found: list[tuple[tuple[Turn, ...], Answerer]] = []
    for kind in KINDS:
        for think in (False, True):
            turns = judge.compare_turns(_PRINCIPLE, prompt, (first, second), kind, think=think)
            found.append((turns, ScriptedTeacher._judge))
        found.append((judge.grade_turns(_PRINCIPLE, prompt, answer, kind), ScriptedTeacher._grade))
        found.append((rewrite.edit_turns(prompt, answer, _PRINCIPLE, kind, _WORDS), ScriptedTeacher._edit))
    for avoid in ("", _MARK.format("opening")):
        turns = rewrite.length_turns(prompt, answer, _PRINCIPLE, _WORDS, avoid)
        found.append((turns, ScriptedTeacher._rewrite))
    found.append((wording_prompts.twin_turns(_PRINCIPLE, prompt), ScriptedTeacher._twin))
    return [(_pattern(turns), answerer) for turns, answerer in found]


_PATTERNS = _patterns()
