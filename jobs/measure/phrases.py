"""Phrases that have no place in an answer or a prompt; each narrow enough that ordinary prose does not hold it."""

from __future__ import annotations

import re

USER_VOICE = re.compile(
    # A request and nothing else, but for sentences about oneself: who asks back gives help or asks for details.
    r"^\W*((can|could|would) you (please )?((help|assist) me\b(?! (to )?(understand|see|learn|know))|write me\b"
    r"|(give|tell|show) me\b(?![^.?!]*\b(more|details?|which|what|where|who|when|how|information|context|idea)\b))"
    r"|(please )?(help|assist) me (?!(to )?(understand|see|learn|know)\b)(to |with |in )?\w+"
    r"|i need (your )?help (with|to)\b)"
    r"[^.?!\n]*[.?!]*(\s+(i|my)\b[^.?!\n]*[.?!]*)*\W*$"
    r"|(^\W*|\n\s*)(user\s*:\s"
    r"|human\s*:\s*((i|can|could|would|what|how|why|who|where|when|please|thanks?|ok|yes|hi|hello|write|tell|give)\b"
    r"|[^\n]*\n+\s*(assistant|ai)\s*:))",
    re.IGNORECASE,
)
"""An answer that asks as the user would, or goes on as the user; `Human: dignity first` is a heading."""

META_ANSWER = re.compile(
    r"^\W*((here('s| is)|this is|below is)\b[^.\n]{0,40}\b(revised|rewritten|improved|corrected|updated)\b[^.\n]{0,20}"
    r"\b(answer|response|reply|version)"
    r"|(my |the )?(revised|rewritten|corrected|improved) (answer|response|reply|version)\b|revision\s*:|critique\s*:)"
    # Only as the first words: further on, a letter may speak of somebody's answer.
    r"|^\W*(in )?(my|your) (initial|previous|original|last) (response|answer|reply),?"
    r" (was|is|did|does|could|should|contained|above|i|you)\b",
    re.IGNORECASE,
)
"""An answer that speaks of being a revision, or of the answer before."""

META_PROMPT = re.compile(
    r"\b(red.?team(ing)?|adversarial) (prompt|message|question|attempt)s?\b"
    r"|\b(goes against|violates?) (this principle\b|the principle\W*$)",
    re.IGNORECASE | re.MULTILINE,
)
"""A prompt that speaks of being one."""

INVISIBLE = re.compile("[\u200b\u200e\u200f\u2060\ufeff\ufffd]")
"""Zero-width characters and the sign for an undecodable one; the joiners of Persian and emoji are not among them."""

SPEAKS_OF_PRINCIPLE = re.compile(
    r"\b((revised|initial) response|critique|red.?team|this principle|the principle of)\b", re.IGNORECASE
)
"""Words of the method in an answer: a hint for a reader, since `the principle of equality` is ordinary prose."""
