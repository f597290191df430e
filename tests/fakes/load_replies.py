"""Answers of the load server: a pure function of the request body, so that outputs can be compared byte for byte."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

from tests.fakes.openai_server import plausible

TOKENS_PER_WORD = 1.3
GARBAGE = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


@dataclass(frozen=True)
class Asked:
    """One chat request, read."""

    body: dict[str, Any]
    digest: bytes
    """Hash of the body, whatever the order of its keys."""
    prompt_tokens: int

    @property
    def last(self) -> str:
        """Text of the last message."""
        return text_of(self.body["messages"][-1])

    @property
    def worst_tokens(self) -> int:
        """What a per-minute limit counts it as."""
        longest = self.body.get("max_completion_tokens") or self.body.get("max_tokens") or 16
        return self.prompt_tokens + int(longest)


@dataclass(frozen=True)
class Written:
    """One answer and what it costs."""

    data: bytes
    """The chat completion object, as JSON."""
    prompt_tokens: int
    reply_tokens: int


def read_request(data: bytes) -> Asked | None:
    """Read a request body; None when it is no chat request."""
    try:
        body = json.loads(data)
        return read_body(body)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def read_body(body: dict[str, Any]) -> Asked | None:
    """Read a request body that was parsed already; None when it is no chat request."""
    messages = body.get("messages")
    if not messages or not isinstance(body.get("model"), str) or body.get("stream"):
        return None
    digest = hashlib.blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=16).digest()
    words = sum(text_of(message).count(" ") + 1 for message in messages)
    return Asked(body, digest, count_tokens(words))


def text_of(message: dict[str, Any]) -> str:
    """Text of a message, also where its content is a list of parts."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def count_tokens(words: int) -> int:
    """Tokens of so many words, as this server counts them."""
    return int(words * TOKENS_PER_WORD + 0.5)


def write_reply(asked: Asked, outcome: str = "ok") -> Written:
    """Write the reply to a request: whole, `truncated` or `empty`."""
    messages = [message | {"content": text_of(message)} for message in asked.body["messages"]]
    text = plausible(asked.body | {"messages": messages})
    if outcome == "truncated":
        text = text[: len(text) // 2]
    if outcome == "empty":
        text = ""
    reply_tokens = count_tokens(text.count(" ") + 1) if text else 0
    completion = {
        "id": f"chatcmpl-{asked.digest.hex()}",
        "object": "chat.completion",
        "created": 0,
        "model": asked.body["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "length" if outcome == "truncated" else "stop",
            }
            | _logprobs(asked.body, text)
        ],
        "usage": {
            "prompt_tokens": asked.prompt_tokens,
            "completion_tokens": reply_tokens,
            "total_tokens": asked.prompt_tokens + reply_tokens,
        },
    }
    return Written(json.dumps(completion).encode(), asked.prompt_tokens, reply_tokens)


def _logprobs(body: dict[str, Any], letter: str) -> dict[str, Any]:
    """Token probabilities of a judge's letter, where they are asked for: 0.8 for it."""
    if not body.get("logprobs"):
        return {}
    chances = {letter: 0.8, "B" if letter == "A" else "A": 0.2}
    listed = [{"token": token, "logprob": math.log(chance)} for token, chance in chances.items()]
    return {"logprobs": {"content": [listed[0] | {"top_logprobs": listed}]}}


def error_body(status: int, message: str = "") -> dict[str, Any]:
    """Error object as OpenAI sends it."""
    known = {
        400: ("This request was refused by our content policy.", "invalid_request_error", "content_policy_violation"),
        404: ("Not found", "invalid_request_error", None),
        405: ("Method not allowed", "invalid_request_error", None),
        429: ("Rate limit reached for requests", "rate_limit_error", "rate_limit_exceeded"),
        500: ("The server had an error while processing your request", "server_error", None),
    }
    said, kind, code = known[status]
    return {"error": {"message": message or said, "type": kind, "param": None, "code": None if message else code}}
