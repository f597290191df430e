"""The chat templates shipped with us, and whether one of them fits a tokenizer.

A template that its model never saw teaches a second way to speak: Zephyr's on a ChatML model ends answers with a token
that the model uses otherwise, and chats in the model's own template meet an untrained model.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, get_args

from jobs.common.chat_tokens import TURN_TOKENS
from jobs.common.errors import ConfigError
from jobs.common.settings import StudentSettings

TEMPLATES = Path(__file__).parent / "templates"

NAMES: tuple[str, ...] = get_args(StudentSettings.model_fields["chat_template"].annotation)
"""`student.chat_template` can be one of these."""

NAMED_TOKENS = {"chatml": (), "mistral": ("bos_token", "eos_token"), "zephyr": ("eos_token",)}
"""Tokens a template takes from the tokenizer by name."""

TURNS = [
    {"role": "user", "content": "First question?"},
    {"role": "assistant", "content": "First answer."},
    {"role": "user", "content": "Second question?"},
    {"role": "assistant", "content": "Second answer."},
]
WITH_SYSTEM = [{"role": "system", "content": "Be brief."}, *TURNS]


def template_text(template: str) -> str:
    """The shipped template, with the assistant's answers marked as generated."""
    return (TEMPLATES / f"{template}.jinja").read_text(encoding="utf-8")


def require_fit(tokenizer: Any, template: str, name: str) -> None:
    """Stop where the template does not belong to the model; `tokenizer` still has its own.

    Raises:
        ConfigError: the tokenizer lacks a token the template writes, or its own template says it otherwise.
    """
    if missing := _missing(tokenizer, template):
        others = [other for other in NAMES if other != template and not _missing(tokenizer, other)]
        advice = f"Set student.chat_template={_nearest(tokenizer, others)}, or choose" if others else "Choose"
        raise ConfigError(
            f"student.chat_template: {template} needs {missing}, which the tokenizer of {name} does not have. "
            f"{advice} another student."
        )
    if not tokenizer.chat_template or _agrees(tokenizer, template):
        return
    fitting = [other for other in NAMES if not _missing(tokenizer, other) and _agrees(tokenizer, other)]
    advice = f"Set student.chat_template={fitting[0]}" if fitting else "Choose a student that speaks one of ours"
    raise ConfigError(
        f"student.chat_template: {template} is not what {name} was trained on: its tokenizer has a template of its own "
        f"that opens or ends turns otherwise ({_turn(tokenizer)!r}). {advice} ({', '.join(NAMES)})."
    )


def _missing(tokenizer: Any, template: str) -> str | None:
    vocabulary = tokenizer.get_vocab()
    written = [token for token in TURN_TOKENS[template] if token not in vocabulary]
    named = [name for name in NAMED_TOKENS[template] if getattr(tokenizer, name) is None]
    return next(iter(written + named), None)


def _nearest(tokenizer: Any, others: list[str]) -> str:
    own = _rendered(tokenizer, TURNS) or ""
    return max(others, key=lambda it: SequenceMatcher(None, own, _rendered(tokenizer, TURNS, it) or "").ratio())


def _agrees(tokenizer: Any, template: str) -> bool:
    # With a system message no template writes its default one; some refuse it, or put it into another turn.
    own = [(turns, text) for turns in (WITH_SYSTEM, TURNS) if (text := _rendered(tokenizer, turns)) is not None]
    return not own or any(text == _rendered(tokenizer, turns, template) for turns, text in own)


def _rendered(tokenizer: Any, turns: list[dict[str, str]], template: str | None = None) -> str | None:
    """The conversation without its white space, by our template or the tokenizer's own; None where it refuses."""
    from jinja2 import TemplateError

    text = template_text(template) if template else None
    try:
        return re.sub(r"\s+", "", tokenizer.apply_chat_template(turns, tokenize=False, chat_template=text))
    except (TemplateError, TypeError, ValueError, KeyError):
        return None


def _turn(tokenizer: Any) -> str:
    for turns in (WITH_SYSTEM, TURNS):
        if (text := _rendered(tokenizer, turns)) is not None:
            return text[-60:]
    return ""
