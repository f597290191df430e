"""Bringing two texts to one length without asking anybody: whole sentences are left out at their ends."""

from __future__ import annotations

from jobs.generate.replies import sentence_ends
from jobs.generate.rewrite import word_bounds

LEAST_LEFT = 0.5
"""Share of a text's words that must remain."""


def beginnings(text: str) -> list[tuple[int, str]]:
    """The text and what is left of it without its last sentences, each with its count of words, longest first."""
    whole = len(text.split())
    cut = [text[:end] for end in reversed(sentence_ends(text)) if text[end:].strip()]
    found = [(whole, text), *((len(part.split()), part) for part in cut)]
    return [(words, part) for words, part in found if words >= LEAST_LEFT * whole]


def fit_one(text: str, least: int, most: int) -> str | None:
    """The longest beginning of a text with so many words, in whole sentences."""
    return next((part for words, part in beginnings(text) if least <= words <= most), None)


def fit_both(row_id: str, chosen: str, rejected: str) -> tuple[str, str] | None:
    """The longest beginnings of both sides that are balanced, in whole sentences; None where there are none."""
    found: list[tuple[int, str, str]] = []
    for rejected_words, shorter in beginnings(rejected):
        least, most = word_bounds(row_id, shorter)
        for words, part in beginnings(chosen):
            if least <= words <= most:
                found.append((words + rejected_words, part, shorter))
    if not found:
        return None
    _, one, other = max(found, key=lambda each: each[0])
    return one, other
