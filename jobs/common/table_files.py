"""Rows of files that other people wrote: JSON lines (also gzipped), JSON lists and parquet, one row at a time."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.common.errors import DataError

ENDINGS = (".jsonl", ".jsonl.gz", ".parquet", ".json")
_ORIGINAL_KEY = re.compile(r"\d+(_\d+)?")
_BATCH = 4096


@dataclass(frozen=True)
class NotJson:
    """A line that is no JSON."""

    why: str
    text: str
    """Its first characters."""


def is_table(path: Path) -> bool:
    """Whether the file's name has an ending whose rows can be read."""
    return path.name.endswith(ENDINGS)


def is_original(path: Path) -> bool:
    """Whether a JSON file has the original authors' shape: `{"3": [...]}` or `{"3_4": [...]}`."""
    if path.suffix != ".json" or not path.is_file():
        return False
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and bool(value) and all(_ORIGINAL_KEY.fullmatch(key) for key in value)


def records(path: Path, only: Collection[int] | None = None) -> Iterator[tuple[int, Any]]:
    """Rows of one file with their line or position, from 1; a line that is no JSON comes as `NotJson`.

    Where `only` is given, rows with these numbers alone.

    A `.json` file that is no list is read as JSON lines, which some name so.

    Raises:
        DataError: the file cannot be read, or is damaged.
    """
    try:
        if path.suffix == ".parquet":
            yield from _parquet(path, only)
            return
        listed = _list(path) if path.suffix == ".json" else None
        rows = _lines(path) if listed is None else enumerate(listed, start=1)
        yield from (row for row in rows if only is None or row[0] in only)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def row_numbers(path: Path) -> Sequence[int]:
    """The numbers that `records` gives the rows of a file; errors as there."""
    if path.suffix != ".parquet":
        return [number for number, _ in records(path)]
    import pyarrow
    import pyarrow.parquet

    try:
        return range(1, pyarrow.parquet.read_metadata(path).num_rows + 1)
    except (OSError, pyarrow.ArrowException) as error:
        what = str(error).splitlines()[0]
        raise DataError(f"{path} cannot be read: it is not a readable parquet file ({what}).") from error


def _list(path: Path) -> list[Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None  # lines; a fault in one is named with its number
    return value if isinstance(value, list) else [value]


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, _parsed(line)


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return NotJson(str(error), line[:200].decode(errors="replace"))


def _parquet(path: Path, only: Collection[int] | None) -> Iterator[tuple[int, Any]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                numbers = range(number + 1, number + 1 + len(batch))
                taken = [it for it in numbers if only is None or it in only]
                rows = batch if only is None else batch.take(pyarrow.array([it - number - 1 for it in taken], "int64"))
                yield from zip(taken, rows.to_pylist(), strict=True)
                number += len(batch)
    except pyarrow.ArrowException as error:
        what = str(error).splitlines()[0]
        raise DataError(f"{path}: damaged after row {number}: it is not a readable parquet file ({what}).") from error
