"""The end of the journal: lines this process writes, until they are on the disk and in the index."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from errno import ENOSPC
from pathlib import Path

from jobs.generate.journal_index import Index
from jobs.generate.journal_records import Reply

FSYNC_WITHIN_S = 0.09
"""Lines that are written within this time share one fsync."""
INDEX_AFTER = 500
"""Replies that wait for the index where no event loop runs."""


@dataclass
class Tail:
    """Writes lines, and flushes in a thread: the disk first, then the index."""

    path: Path
    descriptor: int
    index: Index
    _fresh: dict[str, Reply] = field(default_factory=dict)
    """Replies that are not in the index yet."""
    _leaving: dict[str, Reply] = field(default_factory=dict)
    """Those that the running flush brings there."""
    _loop: asyncio.AbstractEventLoop | None = None
    _timer: asyncio.TimerHandle | None = None
    _flush: Future[bool] | None = None
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "journal"))

    def get(self, key: str) -> Reply | None:
        """A reply that the index may not know yet."""
        return self._leaving.get(key) or self._fresh.get(key)

    def keep(self, key: str, reply: Reply) -> None:
        """Remember a reply until the index knows it."""
        self._fresh.setdefault(key, reply)

    def write(self, line: bytes) -> None:
        """Write a line now; it is on the disk within 100 ms when an event loop runs, else at once.

        Raises:
            OSError: the disk is full or broken, now or at the last flush.
        """
        if self._flush and self._flush.done():
            self._collect()
        if os.write(self.descriptor, line) != len(line):
            raise OSError(ENOSPC, os.strerror(ENOSPC), str(self.path))
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._flush_here()
            return
        if self._timer is None or loop is not self._loop:  # the timer of a loop that has ended never comes
            self._loop = loop
            self._timer = loop.call_later(FSYNC_WITHIN_S, self._begin_flush)

    def close(self) -> None:
        """Bring everything to the disk and, where nobody holds it, to the index."""
        if self._timer:
            self._timer.cancel()
        self._thread.shutdown()
        self._collect()
        os.fsync(self.descriptor)
        self.index.catch_up(0.0)

    def _flush_here(self) -> None:
        os.fsync(self.descriptor)
        if len(self._fresh) >= INDEX_AFTER and self.index.catch_up(0.0):
            self._fresh.clear()

    def _begin_flush(self) -> None:
        self._timer = None
        if self._flush and not self._flush.done():  # a slow disk: these lines wait for the next turn
            self._timer = asyncio.get_running_loop().call_later(FSYNC_WITHIN_S, self._begin_flush)
            return
        if self._flush and self._flush.exception():  # a timer cannot raise into the run: the next line does
            return
        self._collect()
        self._leaving, self._fresh = self._fresh, {}
        self._flush = self._thread.submit(self._bring)

    def _bring(self) -> bool:
        os.fsync(self.descriptor)
        return self.index.catch_up(0.0)

    def _collect(self) -> None:
        """Take the result of a flush that has ended; its error stays and is raised every time."""
        if self._flush:
            if not self._flush.result():  # another process held the index: the next flush tries again
                self._fresh = self._leaving | self._fresh
            self._leaving, self._flush = {}, None
