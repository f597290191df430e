"""What an endpoint's error means for us: wait, try again, drop a parameter, give up on one request, or on the run.

Reads errors only through what every OpenAI-compatible server sends (status, headers, JSON body), live and in batches.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Literal

RETRIED = {408, 409, 425}
BODY_CHARACTERS = 2000
POLICY = re.compile(
    r"(content|usage).?(policy|policies|filter|management)|invalid_prompt|flagged as|safety|moderation|responsible.?ai",
    re.IGNORECASE,
)
TOO_LONG = re.compile(r"context.?(length|size|window)|too (long|many tokens)|maximum context", re.IGNORECASE)
NO_CREDIT = re.compile(r"insufficient_quota|billing (hard )?limit|billing details|credit balance", re.IGNORECASE)
TOO_LARGE = re.compile(r"request too large", re.IGNORECASE)
NO_SCHEMA = re.compile(r"response_format|json_schema|structured output|guided_json|grammar", re.IGNORECASE)
UNSUPPORTED = re.compile(
    r"un(supported|known|recogni[sz]ed|expected)|not (be )?(support|allow|permit|accept)|does not|must|invalid|only",
    re.IGNORECASE,
)
PARAMETERS = ("max_tokens", "seed", "top_p", "temperature")


@dataclass(frozen=True)
class Fault:
    """One failed attempt, judged."""

    kind: Literal["throttled", "retry", "parameter", "refused", "fatal"]
    detail: str
    """What the endpoint said, in one short line."""
    reason: str
    """One word for failures.jsonl."""
    status: int | None = None
    """HTTP status, None where no answer came."""
    body: str = ""
    """What the endpoint said, whole but for keys, at most 2,000 characters."""
    charged: bool = False
    """May the endpoint have charged for it? Unknown where the request was sent and no answer came."""
    retry_after_s: float | None = None
    """What the endpoint asked us to wait, in seconds."""
    headers: Mapping[str, str] = field(default_factory=dict)
    parameter: str = ""
    """For `parameter`: the one it does not take."""


class FaultError(Exception):
    """An attempt that gave no reply."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.detail)
        self.fault = fault


def no_answer(error: BaseException, *, sent: bool) -> Fault:
    """A broken connection; `sent` says whether the endpoint may have got the request."""
    said = f"no answer ({one_line(str(error.__cause__ or error) or type(error).__name__)})."
    return Fault("retry", said, "unavailable", charged=sent)


def too_late(timeout_s: float) -> Fault:
    """The endpoint got the request and did not answer in time."""
    return Fault("retry", f"no answer within {timeout_s:g} s.", "timeout", charged=True)


def malformed(status: int, content: bytes) -> Fault:
    """A 200 whose body is no chat completion, as some gateways send."""
    text = content.decode(errors="replace")
    said = f"it answers with something that is no chat completion ({one_line(text, 80)})."
    return Fault("retry", said, "malformed", status, _body(text), charged=True)


def classify(status: int, headers: Mapping[str, str], content: bytes, *, model: str, key_name: str) -> Fault:
    """Judge an answer with an error status."""
    text = content.decode(errors="replace")
    said = one_line(_message(text))
    judged = _judge(status, said, model, key_name)
    wait_s = _retry_after(headers) if judged.kind in {"throttled", "retry"} else None
    return Fault(
        judged.kind, judged.detail, judged.reason, status, _body(text), False, wait_s, headers, judged.parameter
    )


def _judge(status: int, said: str, model: str, key_name: str) -> Fault:
    if status < 400:
        return Fault("fatal", f"HTTP {status}: it is not here but elsewhere. Check {_url(key_name)}.", "moved")
    if status == 402 or (status in {400, 403, 429} and NO_CREDIT.search(said)):
        return Fault("fatal", f"HTTP {status}, no credit left: {said}. Top up the account.", "no_credit")
    if status == 429 and TOO_LARGE.search(said):  # larger than a whole minute's tokens: it would never pass
        return Fault("refused", f"HTTP 429: {said}.", "too_long")
    if status == 429:
        return Fault("throttled", f"HTTP 429: {said}.", "throttled")
    if status == 503:  # too busy: a 429 by another name
        return Fault("throttled", f"HTTP 503: {said}.", "throttled")
    if status in RETRIED or status >= 500:
        return Fault("retry", f"HTTP {status}: {said}.", "unavailable")
    if status in {401, 403} and not POLICY.search(said):
        return Fault("fatal", f"HTTP {status}: the key is refused. Check {key_name} or its file.", "key")
    if status == 404:
        hint = f"Check {_settings(key_name)}."
        return Fault("fatal", f"HTTP 404: no model {model!r} here ({said}). {hint}", "no_model")
    return _bad_request(status, said)


def _settings(key_name: str) -> str:
    return f"{'initial' if key_name == 'INITIAL_API_KEY' else 'teacher'}.model and {_url(key_name)}"


def _url(key_name: str) -> str:
    return "initial.endpoint" if key_name == "INITIAL_API_KEY" else "OPENAI_BASE_URL"


def _bad_request(status: int, said: str) -> Fault:
    detail = f"HTTP {status}: {said}"
    if POLICY.search(said):
        return Fault("refused", detail, "content_policy")
    if TOO_LONG.search(said):
        return Fault("refused", detail, "too_long")
    if NO_SCHEMA.search(said):
        return Fault("parameter", detail, "bad_request", parameter="response_format")
    if "logprobs" in said:  # so many, or at all: fewer are tried first
        return Fault("parameter", detail, "bad_request", parameter="top_logprobs")
    for name in PARAMETERS if UNSUPPORTED.search(said) else ():
        if re.search(rf"\b{name}\b", said):
            return Fault("parameter", detail, "bad_request", parameter=name)
    return Fault("refused", detail, "bad_request")


def one_line(text: str, limit: int = 200) -> str:
    """Text as one short line, without anything that looks like a key."""
    text = _without_keys(" ".join(writable(text).split()))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def writable(text: str) -> str:
    """Text without lone surrogates, which have no UTF-8 form and would break every file after this one."""
    return text.encode("utf-8", "replace").decode()


def _without_keys(text: str) -> str:
    return re.sub(r"\b(sk|key|hf)[-_][\w*-]{6,}", "[key]", text)


def _body(text: str) -> str:
    return _without_keys(writable(text))[:BODY_CHARACTERS]


def _message(text: str) -> str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    error = value.get("error", value) if isinstance(value, dict) else value
    if not isinstance(error, dict):
        return str(error)
    message = error.get("message")
    return f"{error.get('code') or ''} {message if isinstance(message, str) else json.dumps(error)}".strip()


def _retry_after(headers: Mapping[str, str]) -> float | None:
    milliseconds, seconds = headers.get("retry-after-ms"), headers.get("retry-after")
    try:
        if milliseconds:
            return max(0.0, float(milliseconds) / 1000)
        return max(0.0, float(seconds)) if seconds else None
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(str(seconds)).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
