"""Records of what no training stage may see: held-out prompts, and what the models answer to them."""

from __future__ import annotations

from typing import Literal

from jobs.common.records import Kind, Record

System = Literal["base", "sft", "dpo"]


class HeldOutPrompt(Record):
    """A prompt no training stage may see; `respond` and evaluation use it."""

    prompt: str
    """User message."""
    model: str
    """Model that wrote the prompt."""
    prompt_version: str
    """Version of the wording that asked for it."""
    kind: Kind = "red_team"
    """Kind of the prompt."""
    twin_of: str = ""
    """Id of the red-team prompt a benign twin belongs to; empty for others."""
    language: str = ""
    """Language asked for."""


class Response(Record):
    """One system's answer to one held-out prompt."""

    prompt: str
    """User message."""
    system: System
    """Which model answered: `base`, `sft` or `dpo`."""
    response: str
    """The answer, special tokens removed."""
    response_tokens: int
    """Length of the answer in the student's tokens, its end-of-turn token included."""
    truncated: bool
    """True where the answer hit `respond.max_new_tokens`."""
    model: str
    """The student's name with the system, such as `smollm2-135m-instruct+dpo`."""
    prompt_version: str
    """Version of the red-team wording behind the prompt."""
