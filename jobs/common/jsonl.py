"""Files that appear whole: strict JSONL reading, atomic writing.

A line that cannot be read stops the job with file and line number; nothing is skipped in silence.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from jobs.common.errors import DataError

Record = TypeVar("Record", bound=BaseModel)


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds either all of it or what it held before (temporary name, fsync, rename)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder that appears whole or not at all: yields one to fill, which takes the place of `folder` at the end."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        for path in temporary.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left of files and folders that were to be written whole; nobody may be writing."""
    for left in folder.glob(".*.tmp"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def write_json(path: Path, value: Any) -> None:
    """Write one JSON document atomically, indented and with sorted keys so that equal values are equal bytes."""
    write_atomic(path, (json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object.

    Raises:
        DataError: the file is not a JSON object.
    """
    try:
        value = json.loads(path.read_bytes())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} is damaged: not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} is damaged: expected a JSON object, found {type(value).__name__}.")
    return value


def write_records(path: Path, records: Iterable[BaseModel]) -> None:
    """Write records as JSONL, whole or not at all."""
    write_atomic(path, b"".join(_line(record.model_dump(mode="json")) for record in records))


def read_records(path: Path, model: type[Record]) -> list[Record]:
    """Read every record of a JSONL file.

    Raises:
        DataError: the file is missing, or a line is not a record of this type; names file and line.
    """
    return [_parse(path, number, line, model) for number, line in _lines(path)]


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of a value's canonical JSON: the same for equal values whatever their key order."""
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


def _line(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, sort_keys=True) + "\n").encode()


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist.") from error
    # Only b"\n" ends a line: bytes.splitlines would also cut at the \r a record may hold.
    lines = data.split(b"\n")
    if lines[-1]:
        raise DataError(f"{path}:{len(lines)}: the last line is cut off (no line end): {_excerpt(lines[-1])}")
    yield from enumerate(lines[:-1], start=1)


def _parse(path: Path, number: int, line: bytes, model: type[Record]) -> Record:
    try:
        return model.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        reason = f"{field}: {first['msg']}" if field else first["msg"]
        raise DataError(f"{path}:{number}: not a {model.__name__} ({reason}): {_excerpt(line)}") from error


def _excerpt(line: bytes) -> str:
    text = line.decode(errors="replace")
    return repr(text if len(text) <= 60 else text[:57] + "...")
