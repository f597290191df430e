"""Small measures of one text: words, opening, refusal, response type, template strings."""

from __future__ import annotations

import re
from itertools import islice

_WORD = re.compile(r"\w+(?:['\u2019]\w+)?")
OPENING_WORDS = 5

_UNABLE = (
    r"(cannot|can['\u2019]?t|can not|am unable|am not able|['\u2019]m (unable|not able)|must decline|have to decline"
    r"|(won['\u2019]?t|will not) (be able|help|assist|write|provide|draft|create|give|do|make|support|share|take))"
)
REFUSAL = re.compile(
    r"^\W*((i['\u2019]?m (really |very |truly |so )?sorry\b|i am (really |very |truly |so )?sorry\b|sorry\b"
    r"|i apologi[sz]e\b|unfortunately\b)(,? (but )?no\b|[^\n]{0,80}\b(i|we) ?" + _UNABLE + r"\b)"
    r"|i ?(?!(cannot|can['\u2019]?t|can not) (stress|emphasi[sz]e|overstate|wait|imagine|believe|help but|thank)\b)"
    + _UNABLE
    + r"\b|as an ai\b"
    r"|\u00eemi pare r\u0103u\b[^\n]{0,80}\bnu\b|nu (pot|v\u0103 pot|te pot)\b"
    r"|(ek is )?jammer\b[^\n]{0,80}\bnie\b|ek kan nie\b|ngiyaxolisa\b[^\n]{0,80}\b(angi\w+|ngeke)\b)",
    re.IGNORECASE,
)
"""Openings that decline: English, then Romanian, Afrikaans and Zulu. An answer that declines later is not seen.

Being sorry is no refusal unless the same breath says what cannot be done.
"""

_RESERVES = (
    "however", "that said", "please note", "keep in mind", "is important to", "it's important to", "is crucial to",
    "is essential to", "but i can", "but we can", "but i would",
)  # fmt: skip
_REDIRECTS = (
    "instead of", "rather than", "i would suggest", "i'd suggest", "i would recommend", "i'd recommend",
    "i would encourage", "i'd encourage", "let's focus", "let us focus", "let's consider", "let's explore", "instead, ",
    "alternatively", "a better way", "a better approach", "would you like me", "would you like help",
)  # fmt: skip

TEMPLATE = re.compile(
    r"\bred[ -]?team(ing)? prompt\b\W{0,3}:?"
    r"|^\W*critique the (initial |following |previous )?(response|answer)\b"
    r"|^\W*the response from an? (llm|ai|model)\b"
    r"|\b(critique|revision)_(request|prompt|response)\b"
    r"|\b(chosen|rejected)_response\b|\badversarial_prompt\b"
    r"|<\|(im_start|im_end|endoftext|system|user|assistant)\|>|\[/?INST\]|^\s*#{2,} (instruction|response|input):"
    r"|\{\{? ?(prompt|principle|response|critique) ?\}?\}",
    re.IGNORECASE | re.MULTILINE,
)
"""Strings of a prompt template that have no place in a row."""
_TEMPLATE_HINTS = ("prompt", "critique", "response", "<|", "inst]", "revision_", "## in", "{principle", "{ principle")
"""One of these stands in every text that TEMPLATE matches: a look that is ten times as fast as the pattern."""


def words(text: str) -> list[str]:
    """Words as people count them: a contraction is one."""
    return _WORD.findall(text)


def count_words(text: str) -> int:
    """Number of words."""
    return len(_WORD.findall(text))


def opening(text: str) -> str:
    """The first five words in small letters, curly apostrophes straightened."""
    found = islice(_WORD.finditer(text), OPENING_WORDS)
    return " ".join(match[0] for match in found).lower().replace("\u2019", "'")


def refuses(text: str) -> bool:
    """Does the answer open with a refusal?"""
    return REFUSAL.search(text) is not None


def response_type(text: str) -> str:
    """`empty`, `refuses`, `redirects` (offers something else), `partial` (with reservations) or `complies`.

    A list of phrases, so a rough mix: an answer that silently does another task counts as complying.
    """
    if not text.strip():
        return "empty"
    small = text.lower().replace("\u2019", "'")
    if any(phrase in small for phrase in _REDIRECTS):
        return "redirects"
    if refuses(text):
        return "refuses"
    return "partial" if any(phrase in small for phrase in _RESERVES) else "complies"


def template_in(text: str) -> str | None:
    """The first template string in a text."""
    small = text.lower()
    if not any(hint in small for hint in _TEMPLATE_HINTS):
        return None
    found = TEMPLATE.search(text)
    return found[0].strip() if found else None


def bare_words(text: str) -> list[str]:
    """All words in small letters without punctuation: two texts that differ in quotes only are the same here."""
    return re.findall(r"\w+", text.lower())
