"""Answers of finished batches, on disk before the next batch begins; what a killed job goes on from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jobs.common.held_out import Response
from jobs.common.jsonl import read_records


@dataclass
class Answered:
    """One JSONL file of responses that grows by whole batches."""

    path: Path
    by_id: dict[str, Response] = field(default_factory=dict)
    """Every answer so far, by the prompt's id."""

    def __post_init__(self) -> None:
        """Read what an earlier process left; a last line that was cut off is removed.

        Raises:
            DataError: a whole line is not a response.
        """
        if self.path.exists():
            whole = self.path.read_bytes().rfind(b"\n") + 1
            os.truncate(self.path, whole)
            self.by_id = {one.id: one for one in read_records(self.path, Response)}

    def append(self, batch: Sequence[Response]) -> None:
        """Write one batch durably."""
        with self.path.open("ab") as file:
            file.write(b"".join(one.model_dump_json().encode() + b"\n" for one in batch))
            file.flush()
            os.fsync(file.fileno())
        self.by_id |= {one.id: one for one in batch}

    def remove(self) -> None:
        """Delete the file, once its answers are in responses.jsonl and the manifest is written."""
        self.path.unlink(missing_ok=True)
