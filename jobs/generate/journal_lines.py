"""The lines of the journal: what is written, how it is checked, and what it says.

A line is one JSON object whose first field is the CRC-32 of the rest, written as newline + line + newline: it never
glues itself to the torn tail a killed writer left. Five kinds:
    {"crc32": 1, "at": 1764000000.5, "attempt": "5c…", "intent": {"key": "9f…", "run": "demo", "step": "critique", …}}
    {"crc32": 2, "attempt": "5c…", "key": "9f…", "paid": {"run": "demo", …}, "reply": {"text": "…", …}}
    {"crc32": 3, "release": "5c…"}
    {"crc32": 4, "lose": "5c…", "reason": "timeout after 600 s"}
    {"crc32": 5, "attempts": ["5c…", "5d…"], "batch": "batch_1"}

Without `attempt` and `paid` a reply line is of the journal's first version: it answers, and no run paid it.
"""

from __future__ import annotations

import json
import zlib
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic_core import from_json

from jobs.generate.journal_records import Attempt, Payer, Reply, payer_of

CRC_PREFIX = b'{"crc32": '
CRC_OF_BRACE = zlib.crc32(b"{")
_DAMAGE = (ValueError, KeyError, AttributeError, TypeError, RecursionError, OverflowError)
_BOOLS = ("false", "true")
_OLD_REPLY = {"text": str, "finish_reason": str, "prompt_tokens": int, "reply_tokens": int, "model": str}
_REPLIES = (_OLD_REPLY | {"batch": bool}, _OLD_REPLY | {"batch": bool, "choice": dict}, _OLD_REPLY)


class Intent(NamedTuple):
    """An attempt is about to be sent: the fields of Attempt, in the order of the index's columns."""

    id: int
    run: str
    key: bytes
    endpoint: str
    model: str
    step: str
    prompt_tokens: int
    reply_tokens: int
    batch: bool
    at: float


class Answer(NamedTuple):
    """A reply came. `id` and `payer` are None in lines of the first version."""

    key: bytes
    id: int | None
    payer: Payer | None
    reply: dict[str, Any]
    """The fields of Reply, each of its type."""


class Release(NamedTuple):
    """An attempt cost nothing."""

    id: int


class Loss(NamedTuple):
    """An attempt may have been charged, and its reply will not come."""

    id: int
    reason: str


class Waiting(NamedTuple):
    """Attempts wait in a batch."""

    batch_id: str
    ids: tuple[int, ...]


Line = Intent | Answer | Release | Loss | Waiting


def encode(body: str) -> bytes:
    """One line around a JSON object, with its check sum and both its newlines."""
    raw = body.encode("ascii")
    return b'\n{"crc32": %d, %b\n' % (zlib.crc32(raw), raw[1:])


def intent_line(attempt_id: str, attempt: Attempt, at: float) -> bytes:
    """The line of an attempt that is about to be sent; `at` is in seconds since the epoch."""
    return encode(
        f'{{"at": {at!r}, "attempt": "{attempt_id}", "intent": {{"key": "{attempt.key}", '
        f'"prompt_tokens": {attempt.prompt_tokens}, "reply_tokens": {attempt.reply_tokens}, '
        f'"step": {json.dumps(attempt.step)}, {_payer_fields(payer_of(attempt))}}}}}'
    )


def answer_line(attempt_id: str, key: str, payer: Payer, reply: Reply) -> bytes:
    """The line of a reply. It says who paid, so that accounts need no other line."""
    choice = "" if reply.choice is None else f', "choice": {json.dumps(reply.choice)}'
    return encode(
        f'{{"attempt": "{attempt_id}", "key": "{key}", "paid": {{{_payer_fields(payer)}}}, '
        f'"reply": {{"batch": {_BOOLS[reply.batch]}{choice}, "finish_reason": {json.dumps(reply.finish_reason)}, '
        f'"model": {json.dumps(reply.model)}, "prompt_tokens": {reply.prompt_tokens}, '
        f'"reply_tokens": {reply.reply_tokens}, "text": {json.dumps(reply.text)}}}}}'
    )


@lru_cache(maxsize=64)
def _payer_fields(payer: Payer) -> str:
    return json.dumps(payer._asdict())[1:-1]


def decode(line: bytes) -> Line | None:
    """What a line says, or None where it is damaged."""
    try:
        return _read(_checked(line))
    except _DAMAGE:
        return None


def decode_reply(line: bytes, key: str) -> Reply | None:
    """The reply in a line, or None where the line is damaged or answers another key."""
    try:
        value = _checked(line)
        return Reply(**value["reply"]) if value["key"] == key else None
    except _DAMAGE:
        return None


def _checked(line: bytes) -> dict[str, Any]:
    start = line.index(b", ", len(CRC_PREFIX))
    # The check sum is of the object without it: an opening brace and what follows the first comma.
    crc32 = zlib.crc32(memoryview(line)[start + 2 :], CRC_OF_BRACE)
    if not line.startswith(CRC_PREFIX) or int(line[len(CRC_PREFIX) : start]) != crc32:
        raise ValueError
    try:
        return from_json(line)  # type: ignore[no-any-return]
    except ValueError:  # json takes three times as long, but it alone knows lone surrogates
        return json.loads(line)  # type: ignore[no-any-return]


def _read(value: dict[str, Any]) -> Line:
    if "reply" in value:
        return _read_answer(value)
    if "intent" in value:
        return _read_intent(value, value["intent"])
    if "release" in value:
        return Release(number_of(value["release"]))
    if "lose" in value:
        return Loss(number_of(value["lose"]), _text(value["reason"]))
    return Waiting(_text(value["batch"]), tuple(map(number_of, value["attempts"])))


def _read_intent(value: dict[str, Any], sent: dict[str, Any]) -> Intent:
    payer = _payer(sent["run"], sent["endpoint"], sent["model"], sent["batch"])
    who = (number_of(value["attempt"]), payer.run, key_of(sent["key"]), payer.endpoint, payer.model)
    tokens = (int(sent["prompt_tokens"]), int(sent["reply_tokens"]))
    return Intent(*who, _text(sent["step"]), *tokens, payer.batch, float(value["at"]))


def _read_answer(value: dict[str, Any]) -> Answer:
    reply = value["reply"]
    if dict(zip(reply, map(type, reply.values()), strict=True)) not in _REPLIES:
        raise TypeError
    if "attempt" not in value:
        return Answer(key_of(value["key"]), None, None, reply)
    paid = value["paid"]
    payer = _payer(paid["run"], paid["endpoint"], paid["model"], paid["batch"])
    return Answer(key_of(value["key"]), number_of(value["attempt"]), payer, reply)


@lru_cache(maxsize=64)  # few payers and many lines
def _payer(run: Any, endpoint: Any, model: Any, batch: Any) -> Payer:
    return Payer(_text(run), _text(endpoint), _text(model), bool(batch))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    value.encode()  # raises where the text has no UTF-8 form: SQLite could not keep it
    return value


def key_of(key: str) -> bytes:
    """The 32 bytes of a request key.

    Raises:
        ValueError: it is not 64 lower-case hex digits.
    """
    found = bytes.fromhex(key)
    if len(found) != 32 or found.hex() != key:
        raise ValueError(f"{key!r} is no request key (64 hex digits)")
    return found


def number_of(attempt_id: str) -> int:
    """The number behind an attempt id of 16 hex digits, as SQLite keeps it (below 2**63)."""
    number = int(attempt_id, 16)
    if f"{number:016x}" != attempt_id or number >> 63:
        raise ValueError(f"{attempt_id!r} is no attempt id")
    return number
