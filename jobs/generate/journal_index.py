"""Where each reply of the journal lies, and what each run paid: an SQLite file beside it that can always be rebuilt.

The index is a cache. One transaction moves its rows and how far it has read together, so that a kill leaves it a little
behind and never wrong. An index that is missing, damaged or of another journal is made anew. Several processes share
it: each reads on from where the last one stopped. `find` has a connection of its own, which in WAL mode never waits for
one that writes.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from jobs.common.console import say
from jobs.generate.journal_file import fingerprint, whole_lines
from jobs.generate.journal_tables import Take, forget, is_busy, open_tables

T = TypeVar("T")

FILE_NAME = "replies.v1.sqlite"
"""Another schema takes another number: an old and a new version of the program never share an index."""
TAKE_LINES = 100_000
"""Lines of one transaction: few enough to stay small in memory, many enough to insert keys in long sorted sweeps."""
LET_OTHERS_S = 0.1
"""Pause between two such transactions: as long as SQLite sleeps between two looks at a lock."""
WORTH_SAYING_BYTES = 50_000_000
FIND = "SELECT at, length FROM replies WHERE key = ?"


@dataclass
class Index:
    """The index of one open journal. `find` is for one thread; everything else takes the lock."""

    journal: Path
    descriptor: int
    """The journal, open for reading."""
    path: Path | None
    """The index file; None keeps it in memory, for this object only."""
    wait_s: float = 60.0
    """How long a process that holds the index is waited for, before this one does without the file."""
    damaged: int = 0
    """Lines of the journal that cannot be read, as of the last `catch_up`."""
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _reading: threading.Lock = field(default_factory=threading.Lock)
    _writer: sqlite3.Connection = field(init=False)
    _reader: sqlite3.Connection = field(init=False)
    _cursor: sqlite3.Cursor = field(init=False)
    _generation: int = 0

    def __post_init__(self) -> None:
        try:
            self._connect()
        except sqlite3.DatabaseError as error:
            self._start_anew(error)

    def find(self, key: bytes) -> tuple[int, int] | None:
        """Offset and length of the line with the first reply to a key."""
        while True:
            generation = self._generation
            try:
                with self._reading:
                    # One look at the index for many keys: a third of the time. It lasts until `catch_up` brings news.
                    if self.path and not self._reader.in_transaction:
                        self._reader.execute("BEGIN")
                    found: tuple[int, int] | None = self._cursor.execute(FIND, (key,)).fetchone()
                    return found
            except sqlite3.DatabaseError as error:
                with self._lock:
                    # The thread that flushes may have met the same damage first.
                    if generation == self._generation:
                        self._start_anew(error)
                    self.catch_up()

    def catch_up(self, wait_s: float | None = None) -> bool:
        """Read the journal to its last whole line; False where another process held the index all the time."""
        wait_s = self.wait_s if wait_s is None else wait_s
        with self._lock:
            while True:
                try:
                    while self._take(wait_s):
                        time.sleep(LET_OTHERS_S)
                    self._look_anew()
                    return True
                except sqlite3.DatabaseError as error:
                    if is_busy(error):
                        return False
                    self._start_anew(error)

    def catch_up_or_leave(self) -> None:
        """Read the journal to its last whole line; without the file where another process does not let go of it."""
        if not self.catch_up():
            self._start_anew(sqlite3.OperationalError("held by another process"), may_delete=False)
            self.catch_up()

    def rebuild(self) -> None:
        """Forget everything and read the whole journal again."""
        with self._lock:
            try:
                self._transaction(self.wait_s, lambda: forget(self._writer))
            except sqlite3.DatabaseError as error:
                self._start_anew(error)
            self.catch_up()

    def query(self, ask: Callable[[sqlite3.Connection], T]) -> T:
        """Ask the tables about the whole journal as it is now."""
        with self._lock:
            if self.catch_up():
                try:
                    return ask(self._writer)
                except sqlite3.DatabaseError as error:
                    self._start_anew(error)
            # Damaged, or held by somebody who does not let go: the answer is in the journal too.
            with closing(Index(self.journal, self.descriptor, None)) as own:
                own.catch_up()
                return ask(own._writer)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock, self._reading:
            self._reader.close()
            self._writer.close()

    def _connect(self) -> None:
        self._writer = open_tables(self.path)
        self._reader = open_tables(self.path) if self.path else self._writer
        self._cursor = self._reader.cursor()

    def _start_anew(self, error: sqlite3.DatabaseError, may_delete: bool = True) -> None:
        """Leave a file that cannot be used: delete it the first time, then do without one."""
        if self.path is None or isinstance(error, sqlite3.ProgrammingError):  # a bug, such as use after closing
            raise error
        with self._lock, self._reading:
            self._generation += 1
            with suppress(AttributeError, sqlite3.Error):
                self._writer.close()
                self._reader.close()
            if self._generation == 1 and may_delete and not is_busy(error):
                with suppress(OSError, sqlite3.DatabaseError):
                    for ending in ("", "-wal", "-shm"):
                        Path(f"{self.path}{ending}").unlink(missing_ok=True)
                    self._connect()
                    return
            say(f"journal: {self.path} cannot be used ({error}); this process keeps its index in memory")
            self.path = None
            self._connect()

    def _look_anew(self) -> None:
        with self._reading:
            if self.path and self._reader.in_transaction:
                self._reader.execute("COMMIT")

    def _take(self, wait_s: float) -> bool:
        """Read on by one transaction; whether there may be more."""
        take = Take()
        self._transaction(wait_s, lambda: self._read_on(take))
        return take.lines >= TAKE_LINES

    def _transaction(self, wait_s: float, work: Callable[[], None]) -> None:
        self._writer.execute(f"PRAGMA busy_timeout = {round(wait_s * 1000)}")
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            work()
            self._writer.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
            raise

    def _read_on(self, take: Take) -> None:
        state = self._writer.execute("SELECT covered, damaged, fingerprint FROM state").fetchone() or (0, 0, b"")
        covered, damaged, print_then = state
        size = os.fstat(self.descriptor).st_size
        if covered and (covered > size or print_then != fingerprint(self.descriptor, covered)):
            forget(self._writer)
            covered = damaged = 0
        if not covered and size > WORTH_SAYING_BYTES:
            say(f"journal: making the index of {self.journal} ({size / 1e6:.0f} MB)")
        end = covered
        for at, line in whole_lines(self.descriptor, covered):
            if line:
                take.add(line, at)
            end = at + len(line) + 1
            if take.lines >= TAKE_LINES:
                break
        self.damaged = damaged + take.damaged
        if end > covered:
            take.write(self._writer)
            self._writer.execute("DELETE FROM state")
            now = (end, self.damaged, fingerprint(self.descriptor, end))
            self._writer.execute("INSERT INTO state VALUES (?, ?, ?)", now)
