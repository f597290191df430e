"""The journal as a file: opened for appending, told from others, read line by line."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

CHUNK_BYTES = 1 << 21
MARK_BYTES = 1024


def open_file(folder: Path) -> tuple[Path, int]:
    """Open `folder`/replies.jsonl for reading and appending; end a torn last line, so that it counts as damaged.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "replies.jsonl"
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        os.write(descriptor, b"\n")
    return path, descriptor


def fingerprint(descriptor: int, covered: int) -> bytes:
    """What tells this journal from another: its beginning, and what lies before `covered`."""
    tail = max(0, covered - MARK_BYTES)
    return hashlib.sha256(
        os.pread(descriptor, min(MARK_BYTES, covered), 0) + os.pread(descriptor, covered - tail, tail)
    ).digest()


def whole_lines(descriptor: int, at: int) -> Iterator[tuple[int, bytes]]:
    """The whole lines from offset `at` on, each with its own offset; blank ones too."""
    rest = b""
    while chunk := os.pread(descriptor, CHUNK_BYTES, at + len(rest)):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield at, line
            at += len(line) + 1
