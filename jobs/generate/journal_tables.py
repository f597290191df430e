"""The tables of the journal's index, and how lines of the journal become rows."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from jobs.generate.journal_lines import Answer, Intent, Loss, Release, Waiting, decode
from jobs.generate.journal_records import OpenAttempt, Payer, Spent

SCHEMA = """
CREATE TABLE IF NOT EXISTS state (covered INTEGER, damaged INTEGER, fingerprint BLOB);
CREATE TABLE IF NOT EXISTS replies (key BLOB PRIMARY KEY, at INTEGER, length INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS closed (id INTEGER PRIMARY KEY, paid INTEGER);
CREATE TABLE IF NOT EXISTS open (
    id INTEGER PRIMARY KEY, run TEXT, key BLOB, endpoint TEXT, model TEXT, step TEXT, prompt_tokens INTEGER,
    reply_tokens INTEGER, batch INTEGER, at REAL, reason TEXT, batch_id TEXT);
CREATE TABLE IF NOT EXISTS spent (
    run TEXT, endpoint TEXT, model TEXT, batch INTEGER, requests INTEGER, prompt_tokens INTEGER, reply_tokens INTEGER,
    PRIMARY KEY (run, endpoint, model, batch)) WITHOUT ROWID;
"""
TABLES = ("state", "replies", "closed", "open", "spent")
IN_FLIGHT = "in flight"
CACHE_KIB = 32_000
WAIT_S = 60.0
"""How long opening waits for a process that changes the file's mode or schema."""
MOST_TOKENS = 2**40
"""No request has more; sums of what endpoints claim stay inside SQLite's integers."""

_ADD_OPEN = """
INSERT OR IGNORE INTO open SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12
WHERE NOT EXISTS (SELECT 1 FROM closed WHERE id = ?1)
"""
_ADD_SPENT = """
INSERT INTO spent VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET requests = requests + excluded.requests,
prompt_tokens = prompt_tokens + excluded.prompt_tokens, reply_tokens = reply_tokens + excluded.reply_tokens
"""
_ADD_PAID = "INSERT INTO closed VALUES (?, 1) ON CONFLICT DO UPDATE SET paid = 1"


@dataclass
class Take:
    """Some lines of the journal, read in their order, on their way into the tables."""

    damaged: int = 0
    """Lines that could not be read."""
    lines: int = 0
    """Lines read."""
    _replies: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    _opened: dict[int, tuple[Intent, str, str]] = field(default_factory=dict)
    _paid: dict[int, tuple[Payer, int, int]] = field(default_factory=dict)
    _released: set[int] = field(default_factory=set)
    _reasons: dict[int, str] = field(default_factory=dict)
    _batches: dict[int, str] = field(default_factory=dict)

    def add(self, raw: bytes, at: int) -> None:
        """Take the line that begins at offset `at`."""
        self.lines += 1
        match decode(raw):
            case Answer() as answer:
                self._replies.setdefault(answer.key, (at, len(raw)))
                self._settle(answer)
            case Intent() as intent:
                if intent.id not in self._paid and intent.id not in self._released:
                    self._opened.setdefault(intent.id, (intent, IN_FLIGHT, ""))
            case Release(number):
                self._released.add(number)
                self._opened.pop(number, None)
            case Loss(number, reason):
                self._note(number, reason=reason)
            case Waiting(batch_id, numbers):
                for number in numbers:
                    self._note(number, batch_id=batch_id)
            case None:
                self.damaged += 1

    def _settle(self, answer: Answer) -> None:
        if answer.id is not None and answer.payer is not None:
            used = (_bounded(answer.reply["prompt_tokens"]), _bounded(answer.reply["reply_tokens"]))
            self._paid.setdefault(answer.id, (answer.payer, *used))
            self._opened.pop(answer.id, None)

    def _note(self, number: int, reason: str | None = None, batch_id: str | None = None) -> None:
        if reason is not None:
            self._reasons[number] = reason
        if batch_id is not None:
            self._batches[number] = batch_id
        if number in self._opened:
            intent, reason_then, batch_then = self._opened[number]
            self._opened[number] = (intent, reason or reason_then, batch_id or batch_then)

    def write(self, connection: sqlite3.Connection) -> None:
        """Bring the tables up to date, inside the caller's transaction."""
        run = connection.executemany
        # What is known of attempts of earlier takes goes first: an attempt of this take has it already.
        run("UPDATE open SET reason = ? WHERE id = ?", [(reason, number) for number, reason in self._reasons.items()])
        run("UPDATE open SET batch_id = ? WHERE id = ?", [(batch, number) for number, batch in self._batches.items()])
        run(_ADD_OPEN, [_open_row(*found) for found in self._opened.values()])
        run("INSERT OR IGNORE INTO replies VALUES (?, ?, ?)", sorted((key, *at) for key, at in self._replies.items()))
        run(_ADD_SPENT, self._sums(connection))
        run(_ADD_PAID, ((number,) for number in sorted(self._paid)))
        run("INSERT OR IGNORE INTO closed VALUES (?, 0)", ((number,) for number in sorted(self._released)))
        run("DELETE FROM open WHERE id = ?", ((number,) for number in sorted(self._paid.keys() | self._released)))

    def _sums(self, connection: sqlite3.Connection) -> list[tuple[str | int, ...]]:
        # A second line of the same attempt is a copy, not a second payment.
        known = "SELECT id FROM closed WHERE paid AND id IN (SELECT value FROM json_each(?))"
        copies = {number for (number,) in connection.execute(known, (json.dumps(list(self._paid)),))}
        sums: dict[Payer, list[int]] = defaultdict(lambda: [0, 0, 0])
        for number, (payer, prompt_tokens, reply_tokens) in self._paid.items():
            if number not in copies:
                total = sums[payer]
                total[0] += 1
                total[1] += prompt_tokens
                total[2] += reply_tokens
        return [(*payer, *total) for payer, total in sums.items()]


def _bounded(tokens: int) -> int:
    return max(0, min(tokens, MOST_TOKENS))


def _open_row(intent: Intent, reason: str, batch_id: str) -> tuple[str | int | float | bytes, ...]:
    asked, given = _bounded(intent.prompt_tokens), _bounded(intent.reply_tokens)
    return (*intent._replace(prompt_tokens=asked, reply_tokens=given), reason, batch_id)


def read_account(connection: sqlite3.Connection, run: str) -> list[Spent]:
    """What a run paid for, by endpoint, model and batch."""
    rows = connection.execute("SELECT * FROM spent WHERE run = ? ORDER BY endpoint, model, batch", (run,))
    return [Spent(endpoint, model, bool(batch), *used) for _, endpoint, model, batch, *used in rows]


def read_open(connection: sqlite3.Connection, run: str) -> list[OpenAttempt]:
    """The attempts of a run that are open or lost, oldest first."""
    return [
        _open_attempt(row) for row in connection.execute("SELECT * FROM open WHERE run = ? ORDER BY at, id", (run,))
    ]


def read_one_open(connection: sqlite3.Connection, number: int) -> OpenAttempt | None:
    """One open or lost attempt."""
    row = connection.execute("SELECT * FROM open WHERE id = ?", (number,)).fetchone()
    return _open_attempt(row) if row else None


def _open_attempt(row: tuple[int, str, bytes, str, str, str, int, int, int, float, str, str]) -> OpenAttempt:
    number, run, key, endpoint, model, step, asked, given, batch, at, reason, batch_id = row
    names = (f"{number:016x}", run, key.hex(), endpoint, model, step)
    return OpenAttempt(*names, asked, given, bool(batch), at, reason, batch_id)


def open_tables(path: Path | None) -> sqlite3.Connection:
    """Open the index file, or tables in memory; made where they are missing."""
    deadline = time.monotonic() + WAIT_S
    while True:
        connection = sqlite3.connect(path or ":memory:", WAIT_S, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            # After a power cut the index is then whole, if older; a checkpoint costs an fsync in the flushing thread.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA journal_size_limit = 16000000")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            connection.executescript(SCHEMA)
            return connection
        except sqlite3.DatabaseError as error:
            connection.close()
            # The change to WAL does not wait for another process that makes it.
            if not is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def is_busy(error: sqlite3.DatabaseError) -> bool:
    """Whether another process holds the file, so that waiting helps."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def forget(connection: sqlite3.Connection) -> None:
    """Empty the tables."""
    for table in TABLES:
        connection.execute(f"DELETE FROM {table}")
