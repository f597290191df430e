"""One lock per run folder, so that two processes never write the same run."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from jobs.common.errors import StoppedError


@contextmanager
def run_lock(folder: Path, stage: str) -> Iterator[None]:
    """Hold the run folder; the kernel releases it however the process ends.

    Raises:
        StoppedError: another process holds it; says which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+") as file:
        if not _taken(file):
            file.seek(0)
            found = file.read().strip() or "another process"
            raise StoppedError(f"{folder} is locked by {found}. Wait for it to end, then run this again.")
        holder = {
            "stage": stage,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        file.truncate(0)
        file.write(json.dumps(holder))
        file.flush()
        yield


def _taken(file: TextIO) -> bool:
    for wait_s in (0.05, 0.05, 0.0):  # `cai status` holds it for a moment to see whether it is held
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(wait_s)
    return False
