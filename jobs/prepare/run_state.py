"""What the files of a run folder say about its stages: manifests, progress.json and who holds the lock.

Holds no lock and writes nothing, so that it can be asked while the run goes on.
"""

from __future__ import annotations

import fcntl
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from jobs.common.errors import DataError
from jobs.common.jsonl import read_json
from jobs.common.live import Live

Document = TypeVar("Document", bound=BaseModel)


class Manifest(BaseModel):
    """What is shown of a manifest.json."""

    finished: datetime
    wall_s: float = 0.0
    counts: dict[str, int] = {}
    dropped: dict[str, int] = {}
    tokens: dict[str, int] = {}
    cost_usd: float | None = None


class Begun(BaseModel):
    """What is shown of a begun.json."""

    command: str = ""
    """The command line that began the stage and goes on with it."""


class Progress(BaseModel):
    """A progress.json."""

    step: str
    done: int
    total: int
    figures: str = ""
    live: Live | None = None
    eta_s: float | None = None
    updated: float
    """Unix time, in seconds."""
    pid: int
    host: str

    @property
    def at(self) -> str:
        """How far, in a few words."""
        return f"{self.step} {self.done}/{self.total}"


class Holder(BaseModel):
    """Who holds a run."""

    stage: str
    pid: int
    host: str
    since: datetime


def read_document(path: Path, model: type[Document]) -> Document | None:
    """A JSON file as this type, None where there is no such file.

    Raises:
        DataError: it cannot be read, is not JSON or not of this type.
    """
    try:
        return model.model_validate(read_json(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{path} is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from error


def holder(folder: Path) -> Holder | None:
    """Who holds the run in this folder, None where nobody does.

    The lock file outlives its writer, so the kernel is asked: a shared lock is tried and given back at once. `run_lock`
    tries again after a moment, so a stage that begins just then is not turned away.
    """
    try:
        with (folder / ".lock").open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _named(file.read())
    except FileNotFoundError:
        pass
    return None


def _named(data: bytes) -> Holder:
    try:
        return Holder.model_validate_json(data)
    except ValidationError:  # it took the lock this moment and has not written its name yet
        return Holder(stage="", pid=0, host="", since=datetime.now(UTC))
