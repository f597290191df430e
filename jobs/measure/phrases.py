"""Phrases that have no place in an answer or a prompt; each narrow enough that ordinary prose does not hold it."""

from __future__ import annotations

import re

USER_VOICE = re.compile(
    r"^\W*((can|could|would) you (please )?(help|assist|write|give|tell|show) me\b"
    r"|(please )?(help|assist) me (to |with |in )?\w+|i need (your )?help (with|to)\b|(user|human)\s*:)"
    r"|\n\s*(user|human)\s*:\s",
    re.IGNORECASE,
)
"""An answer that asks as the user would, or goes on as the user."""

META_ANSWER = re.compile(
    r"^\W*((here('s| is)|this is|below is)\b[^.\n]{0,40}\b(revised|rewritten|improved|corrected|updated)\b[^.\n]{0,20}"
    r"\b(answer|response|reply|version)"
    r"|(my |the )?(revised|rewritten|corrected|improved) (answer|response|reply|version)\b|revision\s*:|critique\s*:)"
    r"|\b(my|your) (initial|previous|original|last) (response|answer|reply)"
    r" (was|is|did|does|could|should|contained|above)\b",
    re.IGNORECASE,
)
"""An answer that speaks of being a revision, or of the answer before."""

META_PROMPT = re.compile(
    r"\b(red.?team(ing)?|adversarial) (prompt|message|question|attempt)s?\b"
    r"|\b(goes against|violates?) (this|the) principle\b",
    re.IGNORECASE,
)
"""A prompt that speaks of being one."""

INVISIBLE = re.compile("[\u200b\u200e\u200f\u2060\ufeff\ufffd]")
"""Zero-width characters and the sign for an undecodable one; the joiners of Persian and emoji are not among them."""

SPEAKS_OF_PRINCIPLE = re.compile(
    r"\b((revised|initial) response|critique|red.?team|this principle|the principle of)\b", re.IGNORECASE
)
"""Words of the method in an answer: a hint for a reader, since `the principle of equality` is ordinary prose."""
