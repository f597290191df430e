"""The journal of paid replies: every reply is on disk when it arrives, so a killed run loses only what was in flight.

One file, `RUNS/journal/replies.jsonl`, shared by all runs and safe for several processes: each reply is one
`os.write` to an O_APPEND descriptor. A record is written as newline + JSON + newline, so that it never glues itself to
the torn tail a killed writer left. One line:

    {"crc32": 1234, "key": "9f…", "reply": {"finish_reason": "stop", "text": "…", "reply_tokens": 41, …}}
"""

from __future__ import annotations

import asyncio
import json
import os
import zlib
from dataclasses import dataclass, field
from errno import ENOSPC
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

FSYNC_WITHIN_S = 0.09
"""Replies that arrive within this time share one fsync."""


class Reply(BaseModel):
    """One reply of an endpoint, as it came."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str
    """Content of the assistant message; JSON where a schema was asked for."""
    finish_reason: str
    """`stop`, `length`, `content_filter` or whatever else the endpoint said."""
    prompt_tokens: int
    """Tokens of the request, as the endpoint counts them."""
    reply_tokens: int
    """Tokens of the reply, as the endpoint counts them."""
    model: str
    """Model name the endpoint reports."""


@dataclass
class Journal:
    """Replies by request key; `open_journal` reads what earlier runs left."""

    path: Path
    descriptor: int
    replies: dict[str, Reply] = field(default_factory=dict)
    damaged: int = 0
    """Lines that could not be read; what they held is asked again."""
    _pending: asyncio.TimerHandle | None = None
    _sync_error: OSError | None = None

    def get(self, key: str) -> Reply | None:
        """The journalled reply to a request, if there is one."""
        return self.replies.get(key)

    def append(self, key: str, reply: Reply) -> None:
        """Write a reply now; it is on the disk within 100 ms when an event loop runs, else at once.

        Raises:
            OSError: the disk is full or broken.
        """
        if self._sync_error:
            raise self._sync_error
        line = _encode(key, reply)
        if os.write(self.descriptor, line) != len(line):
            raise OSError(ENOSPC, os.strerror(ENOSPC), str(self.path))
        self.replies.setdefault(key, reply)
        if self._pending is None:
            self._schedule_sync()

    def close(self) -> None:
        """Bring everything to the disk and let go of the file."""
        if self._pending:
            self._pending.cancel()
        os.fsync(self.descriptor)
        os.close(self.descriptor)

    def _schedule_sync(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            os.fsync(self.descriptor)
            return
        self._pending = loop.call_later(FSYNC_WITHIN_S, self._sync)

    def _sync(self) -> None:
        self._pending = None
        try:
            os.fsync(self.descriptor)
        except OSError as error:  # a timer cannot raise into the run: the next append does
            self._sync_error = error


def open_journal(folder: Path) -> Journal:
    """Open `folder`/replies.jsonl for reading and appending, and read it.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "replies.jsonl"
    journal = Journal(path, os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644))
    for line in path.read_bytes().split(b"\n"):
        if not line:
            continue
        found = _decode(line)
        if found is None:
            journal.damaged += 1
        else:
            # The first reply to a request stays the reply, whatever a second process added later.
            journal.replies.setdefault(*found)
    return journal


def _encode(key: str, reply: Reply) -> bytes:
    value = {"key": key, "reply": reply.model_dump(mode="json")}
    return b"\n" + _canonical(value | {"crc32": zlib.crc32(_canonical(value))}) + b"\n"


def _decode(line: bytes) -> tuple[str, Reply] | None:
    try:
        value: Any = json.loads(line)
        crc32 = value.pop("crc32")
        if crc32 != zlib.crc32(_canonical(value)):
            return None
        return str(value["key"]), Reply.model_validate(value["reply"])
    except (UnicodeError, ValueError, ValidationError, KeyError, AttributeError, TypeError, RecursionError):
        return None


def _canonical(value: Any) -> bytes:
    # ASCII, because a lone surrogate in a reply has no UTF-8 form.
    return json.dumps(value, sort_keys=True).encode()
