"""Why a prompt or a finished chain is not used: pure functions, each gives None or (reason, what it saw).

A refusal is not dropped here: a good refusal is a fine revision, and a bad one is for the data report to show.
"""

from __future__ import annotations

import difflib
import re

from jobs.common.records import Kind

Drop = tuple[str, str]

PROMPT_WORDS = (5, 120)
"""Shortest and longest prompt, in words."""
SAME_TEXT = 0.97
"""Similarity from which a revision counts as unchanged."""

_META_PROMPT = re.compile(
    r"^(here (are|is)|sure\b|certainly\b|of course\b|message \d|user(s)? (message|asks)|the (user|message|answer)\b"
    r"|as an ai\b|i'm sorry, but|i cannot (assist|help|fulfil)|principle:|write a message|note:"
    r"|((re)?written|revised|changed|new|edited) (message|version)\b|message:)",
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


_DECLINES = re.compile(
    r"\b(I('m| am) (sorry|afraid)\b[^.\n]{0,60}\b(can't|cannot|can not|won't|unable|not able)"
    r"|I (can't|cannot|can not|won't|will not|(am|'m) (unable|not able) to) (help|assist|support|provide|comply|"
    r"do (that|this)|fulfil|write|give|answer|create|share|offer)"
    r"|I must (decline|refuse)|I have to (decline|refuse)"
    r"|ek kan (jou |u )?nie (daarmee |hiermee )?(help|bystaan)|nu (te |vă )?pot (să )?(ajuta|ajut|asista)"
    r"|angikwazi ukukusiza|ngeke ngikwazi ukukusiza)",
    re.IGNORECASE,
)
DECLINES_WITHIN = 240
"""A refusal stands at the beginning: characters of an answer that are searched for one."""


def answer_fault(kind: Kind, initial: str, critique: str, answer: str) -> Drop | None:
    """Why an answer, revised or rewritten, cannot be the better side: as `revision_fault`, or a twin declines."""
    if fault := revision_fault(initial, critique, answer):
        return fault
    if kind == "benign_twin" and (match := _DECLINES.search(answer.replace("\u2019", "'")[:DECLINES_WITHIN])):
        return "twin_declines", match[0]
    return None


def same_text(one: str, other: str) -> bool:
    """Are two texts the same but for case and punctuation?"""
    return _normal(one) == _normal(other)


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
