"""Why a prompt or a finished chain is not used: pure functions, each gives None or (reason, what it saw).

A refusal is not dropped here: a good refusal is a fine revision, and a bad one is for the data report to show.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import defaultdict
from dataclasses import dataclass, field

Drop = tuple[str, str]

PROMPT_WORDS = (5, 120)
"""Shortest and longest prompt, in words."""
SAME_WORDS = 0.8
"""Overlap of two prompts' words (Jaccard) from which they count as the same."""
SAME_TEXT = 0.97
"""Similarity from which a revision counts as unchanged."""

_META_PROMPT = re.compile(
    r"^(here (are|is)|sure\b|certainly\b|of course\b|message \d|user(s)? (message|asks)|the (user|message|answer)\b"
    r"|as an ai\b|i'm sorry, but|i cannot (assist|help|fulfil)|principle:|write a message|note:)",
    re.IGNORECASE,
)
_NAMES_TASK = re.compile(
    r"goes against (it|the principle|this)|this principle|the principle of|red.?team", re.IGNORECASE
)
_META_REVISION = re.compile(
    r"^\W*((sure|certainly|of course|okay|absolutely)\b[^.\n]{0,80}\b(revis|rewrit|version|answer)"
    r"|(here('s| is| are)|this is|below is)\b[^.\n]{0,60}\b(revis|rewrit)\w*"
    r"|(here('s| is| are)|this is|below is)\b[^.\n]{0,60}\b(updat|improv|correct|new|better)\w*\W+(\w+\W+)?"
    r"(answer|response|version|reply|text|draft)"
    r"|(my |the )?(revised|rewritten|updated|improved|corrected|new)\s+(answer|response|version|reply|text)\b"
    r"|as an ai\b[^.\n]{0,60}\brevised|i (have|'ve) (revised|rewritten|updated|changed)|revision\s*:"
    r"|to (revise|rewrite) (the|this|my))",
    re.IGNORECASE,
)
_ABOUT_ANSWER = re.compile(
    r"\b(the|my|your) (previous|last|original|initial|first) (answer|response|reply)\b|\bthe (critique|revision)\b"
    r"|\bcritique_request\b|\brevision_request\b",
    re.IGNORECASE,
)


def prompt_fault(prompt: str) -> Drop | None:
    """Why a line is no red-team prompt by itself."""
    words = prompt.split()
    if len(words) < PROMPT_WORDS[0]:
        return "too_short", f"{len(words)} words"
    if len(words) > PROMPT_WORDS[1]:
        return "too_long", f"{len(words)} words"
    if len(words) >= 12 and len(set(map(str.lower, words))) < 0.4 * len(words):
        return "garbage", "repeats itself"
    if sum(character.isalpha() for character in prompt) < 0.6 * len("".join(words)):
        return "garbage", "hardly any letters"
    for pattern in (_META_PROMPT, _NAMES_TASK):
        if match := pattern.search(prompt):
            return "meta_talk", match[0]
    return None


def words_of(text: str) -> frozenset[str]:
    """The words of a text for comparison, without case and punctuation."""
    return frozenset(re.findall(r"\w+", text.lower()))


def is_same(one: frozenset[str], other: frozenset[str]) -> bool:
    """Do two prompts say the same thing in nearly the same words?"""
    both = len(one & other)
    return both >= SAME_WORDS * (len(one) + len(other) - both)


@dataclass
class Distinct:
    """Prompts that are not the same as one another, found without comparing each with all.

    Two sets of words that overlap by SAME_WORDS (Jaccard) share one of the first `n - ceil(SAME_WORDS * n) + 1`
    words of each in any one order (prefix filter, Chaudhuri et al. 2006); longest first, since long words are rare.
    """

    _by_word: dict[str, list[tuple[frozenset[str], str]]] = field(default_factory=lambda: defaultdict(list))

    def same_as(self, prompt: str) -> str | None:
        """A prompt added before that says the same, if there is one."""
        words = words_of(prompt)
        near = (found for word in _prefix(words) for found in self._by_word.get(word, ()))
        return next((other for seen, other in near if is_same(seen, words)), None)

    def add(self, prompt: str) -> None:
        """Remember a prompt."""
        words = words_of(prompt)
        for word in _prefix(words):
            self._by_word[word].append((words, prompt))


def _prefix(words: frozenset[str]) -> list[str]:
    ordered = sorted(words, key=lambda word: (-len(word), word))
    return ordered[: len(words) - math.ceil(SAME_WORDS * len(words)) + 1]


def revision_fault(initial: str, critique: str, revision: str) -> Drop | None:
    """Why a finished chain cannot teach anything."""
    if not revision.strip():
        return "empty", "no revision"
    before, after = _normal(initial), _normal(revision)
    if before == after:
        return "unchanged", "revision equals the initial response"
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    if matcher.real_quick_ratio() >= SAME_TEXT and matcher.quick_ratio() >= SAME_TEXT:
        ratio = matcher.ratio()
        if ratio >= SAME_TEXT:
            return "unchanged", f"revision is {ratio:.0%} like the initial response"
    if after == _normal(critique):
        return "copied", "revision equals the critique"
    for pattern in (_META_REVISION, _ABOUT_ANSWER):
        if match := pattern.search(revision):
            return "meta_talk", match[0]
    return None


def _normal(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
