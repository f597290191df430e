"""What an endpoint's error means for us: try again, drop a parameter, give up on one request, or on the run.

Reads errors only through what every OpenAI-compatible server sends (status, headers, JSON body), so that `teacher.py`
stays the only import of `openai`.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from jobs.generate.journal import Reply

LONGEST_RETRY_AFTER_S = 120.0
RETRIED = {408, 409, 425, 429}
POLICY = re.compile(r"content.?(policy|filter|management)|safety|moderation|responsible.?ai", re.IGNORECASE)
TOO_LONG = re.compile(r"context.?(length|size|window)|too (long|many tokens)|maximum context", re.IGNORECASE)
NO_CREDIT = re.compile(r"insufficient_quota|billing|credit balance", re.IGNORECASE)
NO_SCHEMA = re.compile(r"response_format|json_schema|structured output|guided_json|grammar", re.IGNORECASE)
PARAMETERS = ("max_tokens", "seed", "top_p", "temperature")


class MalformedError(Exception):
    """A 200 that is no chat completion."""


@dataclass(frozen=True)
class Fault:
    """One error, judged."""

    kind: Literal["retry", "parameter", "refused", "fatal"]
    detail: str
    """What the endpoint said, in one short line."""
    reason: str = ""
    """One word for failures.jsonl."""
    retry_after_s: float | None = None
    """What the endpoint asked us to wait, in seconds."""
    parameter: str = ""
    """For `parameter`: the one it does not take."""


def classify(error: Any, model: str, key_name: str) -> Fault:
    """Judge an error of the client; anything without a status is a broken connection or a timeout."""
    if isinstance(error, MalformedError):
        return Fault("retry", f"it answers with something that is no chat completion ({error}).")
    status = getattr(error, "status_code", None)
    if status is None:
        cause = error.__cause__ or error
        return Fault("retry", f"no answer ({type(error).__name__}: {one_line(str(cause))}).")
    said = one_line(f"{getattr(error, 'code', None) or ''} {_message(error)}".strip())
    if status == 429 and NO_CREDIT.search(said):
        return Fault("fatal", f"HTTP 429, no credit left: {said}. Top up the account.")
    if status in RETRIED or status >= 500:
        return Fault("retry", f"HTTP {status}: {said}.", retry_after_s=_retry_after(error.response.headers))
    if status in {401, 403} and not POLICY.search(said):
        return Fault("fatal", f"HTTP {status}: the key is refused. Check {key_name} or its file.")
    if status == 404:
        return Fault("fatal", f"HTTP 404: no model {model!r} here ({said}). Check {_settings(key_name)}.")
    return _bad_request(status, said)


def _settings(key_name: str) -> str:
    if key_name == "INITIAL_API_KEY":
        return "initial.model and initial.endpoint"
    return "teacher.model and OPENAI_BASE_URL"


def _bad_request(status: int, said: str) -> Fault:
    if POLICY.search(said):
        return Fault("refused", f"HTTP {status}: {said}", "content_policy")
    if TOO_LONG.search(said):
        return Fault("refused", f"HTTP {status}: {said}", "too_long")
    if NO_SCHEMA.search(said):
        return Fault("parameter", f"HTTP {status}: {said}", "bad_request", parameter="response_format")
    for name in PARAMETERS:
        if re.search(rf"\b{name}\b", said):
            return Fault("parameter", f"HTTP {status}: {said}", "bad_request", parameter=name)
    return Fault("refused", f"HTTP {status}: {said}", "bad_request")


def read_completion(completion: Any, model: str) -> Reply:
    """Turn the client's object into a Reply.

    Raises:
        MalformedError: a 200 whose body is no chat completion, as some gateways send.
    """
    choices = getattr(completion, "choices", None)
    if not choices or getattr(choices[0], "message", None) is None:
        raise MalformedError(one_line(str(completion), 80))
    choice, usage = choices[0], getattr(completion, "usage", None)
    message = choice.message
    return Reply(
        text=getattr(message, "content", None) or getattr(message, "refusal", None) or "",
        finish_reason=str(choice.finish_reason or "stop"),
        prompt_tokens=getattr(usage, "prompt_tokens", 0) or 0,
        reply_tokens=getattr(usage, "completion_tokens", 0) or 0,
        model=str(getattr(completion, "model", None) or model),
    )


def one_line(text: str, limit: int = 200) -> str:
    """Text as one short line, without anything that looks like a key."""
    text = re.sub(r"\b(sk|key|hf)[-_][\w*-]{6,}", "[key]", " ".join(text.split()))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _message(error: Any) -> str:
    body = getattr(error, "body", None)
    if isinstance(body, dict) and isinstance(body.get("message"), str):
        return str(body["message"])
    return str(getattr(error, "message", error))


def _retry_after(headers: Any) -> float | None:
    milliseconds, seconds = headers.get("retry-after-ms"), headers.get("retry-after")
    try:
        if milliseconds:
            return min(LONGEST_RETRY_AFTER_S, max(0.0, float(milliseconds) / 1000))
        return min(LONGEST_RETRY_AFTER_S, max(0.0, float(seconds))) if seconds else None
    except ValueError:
        pass
    try:
        return min(LONGEST_RETRY_AFTER_S, max(0.0, parsedate_to_datetime(seconds).timestamp() - time.time()))
    except (TypeError, ValueError):
        return None
