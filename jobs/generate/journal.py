"""The journal of paid replies: what is sent and what comes back is on disk at once, so that nothing is paid twice.

One file, `RUNS/journal/replies.jsonl`, shared by all runs and safe for several processes: each line is one `os.write`
to an O_APPEND descriptor (see journal_lines.py). Around each request:

    attempt_id = journal.begin(attempt)     # before it is sent
    journal.settle(attempt_id, reply)       # a reply came: it is paid, and answers `get` from now on
    journal.release(attempt_id)             # or: it was refused, nothing was charged
    journal.lose(attempt_id, reason)        # or: nobody knows; it stays counted at its worst case

Replies stay on disk; an index beside the journal says where (journal_index.py).
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from jobs.generate.journal_file import open_file
from jobs.generate.journal_index import FILE_NAME, Index
from jobs.generate.journal_lines import answer_line, decode_reply, encode, intent_line, key_of, number_of
from jobs.generate.journal_records import Attempt, OpenAttempt, Reply, Spent, payer_of
from jobs.generate.journal_tables import read_account, read_one_open, read_open
from jobs.generate.journal_tail import Tail

__all__ = ["Attempt", "Journal", "OpenAttempt", "Reply", "Spent", "open_journal"]


@dataclass
class Journal:
    """The open journal; one object per process, used from one thread."""

    path: Path
    descriptor: int
    index: Index
    tail: Tail
    _in_flight: dict[str, Attempt] = field(default_factory=dict)
    _ids: int = field(default_factory=lambda: secrets.randbits(39) << 24)

    @property
    def damaged(self) -> int:
        """Lines that cannot be read, as of the last look; what they held is asked again."""
        return self.index.damaged

    def get(self, key: str) -> Reply | None:
        """The first reply to a request, if there is one."""
        return self._read(key) or self.tail.get(key)

    def begin(self, attempt: Attempt) -> str:
        """Say what is about to be sent; the returned id names this attempt from now on.

        Raises:
            OSError: the disk is full or broken.
            ValueError: the key is none.
        """
        key_of(attempt.key)
        self._ids += 1
        if not self._ids & 0xFFFFFF:
            self._ids = (secrets.randbits(39) << 24) + 1
        attempt_id = f"{self._ids:016x}"
        self.tail.write(intent_line(attempt_id, attempt, time.time()))
        self._in_flight[attempt_id] = attempt
        return attempt_id

    def settle(self, attempt_id: str, reply: Reply, key: str | None = None) -> None:
        """Write the reply to an attempt, of this process or an earlier one.

        Args:
            attempt_id: what `begin` gave.
            reply: what came.
            key: the key it answers from now on, where that is not the attempt's own.

        Raises:
            OSError: the disk is full or broken.
            KeyError: there is no such attempt, or it has been settled or released.
        """
        sent = self._in_flight.get(attempt_id) or self._earlier(attempt_id)
        key = key or sent.key
        self.tail.write(answer_line(attempt_id, key, payer_of(sent), reply))
        self._in_flight.pop(attempt_id, None)
        self.tail.keep(key, reply)

    def release(self, attempt_id: str) -> None:
        """Say that an attempt cost nothing: refused, rate limited, never connected."""
        self.tail.write(encode(json.dumps({"release": attempt_id})))
        self._in_flight.pop(attempt_id, None)

    def lose(self, attempt_id: str, reason: str) -> None:
        """Say that an attempt may have been charged and its reply will not come: timeout, dropped connection."""
        clean = reason.encode(errors="replace").decode()
        self.tail.write(encode(json.dumps({"lose": attempt_id, "reason": clean})))
        self._in_flight.pop(attempt_id, None)

    def batch_created(self, batch_id: str, attempt_ids: Iterable[str]) -> None:
        """Say that attempts wait in a batch, so that a later process can fetch it."""
        self.tail.write(encode(json.dumps({"attempts": list(attempt_ids), "batch": batch_id})))

    def account(self, run: str) -> list[Spent]:
        """What a run paid for replies that came, in every process, by endpoint, model and batch."""
        return self.index.query(lambda connection: read_account(connection, run))

    def lost(self, run: str) -> list[OpenAttempt]:
        """The attempts of a run that may have been charged and have no reply, oldest first.

        Those in flight in this process are not among them; those of an earlier process are, because a run has one
        process at a time. An attempt with a `batch_id` can still be fetched.
        """
        found = self.index.query(lambda connection: read_open(connection, run))
        return [attempt for attempt in found if attempt.id not in self._in_flight]

    def count(self) -> int:
        """How many requests have a reply."""
        return self.index.query(
            lambda connection: int(connection.execute("SELECT count(*) FROM replies").fetchone()[0])
        )

    def close(self) -> None:
        """Bring everything to the disk and let go of the files.

        Raises:
            OSError: the disk is full or broken.
        """
        try:
            self.tail.close()
        finally:
            self.index.close()
            os.close(self.descriptor)

    def _earlier(self, attempt_id: str) -> OpenAttempt:
        number = number_of(attempt_id)
        found = self.index.query(lambda connection: read_one_open(connection, number))
        if found is None:
            raise KeyError(attempt_id)
        return found

    def _read(self, key: str) -> Reply | None:
        """The reply where the index says it is; the index is made anew where that is not so."""
        number = key_of(key)
        for may_rebuild in (True, False):
            where = self.index.find(number)
            if where is None:
                return None
            reply = decode_reply(os.pread(self.descriptor, where[1], where[0]), key)
            if reply:
                return reply
            if may_rebuild:
                self.index.rebuild()
        return None


def open_journal(folder: Path) -> Journal:
    """Open `folder`/replies.jsonl for reading and appending, and bring its index up to date.

    A torn last line, left by a writer that was killed, is ended here and from then on counts as damaged.

    Raises:
        OSError: the folder cannot be written.
    """
    path, descriptor = open_file(folder)
    index = Index(path, descriptor, folder / FILE_NAME)
    index.catch_up_or_leave()
    return Journal(path, descriptor, index, Tail(path, descriptor, index))
