"""Reads a chat completion, live or of a batch."""

from __future__ import annotations

from typing import Any

from jobs.generate.choices import read_choice
from jobs.generate.journal import Reply


def read_completion(body: Any, model: str, choices: tuple[str, ...] = ()) -> Reply | None:
    """Turn a chat completion into a Reply, with the probability of each choice; None where it is none."""
    try:
        choice, usage = body["choices"][0], body.get("usage") or {}
        message = choice["message"]
        text = message.get("content") or message.get("refusal") or ""
        return Reply(
            text=text,
            finish_reason=str(choice.get("finish_reason") or "stop"),
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            reply_tokens=int(usage.get("completion_tokens") or 0),
            model=str(body.get("model") or model),
            choice=read_choice(text, choice.get("logprobs"), choices) if choices else None,
        )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError):
        return None
