"""Rows of JSONL (also gzipped), parquet and JSON-list files: what can be read, and what cannot with its reason."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.audit.shapes import BadRowError, Place, Want, split_word
from jobs.common.errors import DataError

ENDINGS = (".jsonl", ".jsonl.gz", ".parquet", ".json")
ORIGINAL_KEY = re.compile(r"\d+(_\d+)?")


def is_table(path: Path) -> bool:
    """Whether the file's name has an ending whose rows can be read."""
    return path.name.endswith(ENDINGS)


def is_original(path: Path) -> bool:
    """Whether a JSON file has the original authors' shape: `{"3": [...]}` or `{"3_4": [...]}`."""
    if path.suffix != ".json" or not path.is_file():
        return False
    try:
        value = json.loads(path.read_bytes())
    except ValueError:
        return False
    return isinstance(value, dict) and bool(value) and all(ORIGINAL_KEY.fullmatch(key) for key in value)


def place_of(name: str) -> tuple[str, Want]:
    """Split and kind of rows that a file's name tells, such as `test_prefs.parquet`."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    want: Want = "pairs" if words & {"prefs", "pairs", "dpo", "preference"} else ""
    return split_word(name), want or ("examples" if "sft" in words else "")


def rows_of(path: Path, name: str, prefix: str = "") -> Iterator[tuple[Any | BadRowError, Place]]:
    """Every row of a file with its place; a line that cannot be read comes as its error.

    Args:
        path: the file.
        name: its name as shown, whose words tell split and kind; below a folder or in a repository, its path there.
        prefix: what comes before the ids of its rows.

    Raises:
        DataError: the file cannot be read at all.
    """
    split, want = place_of(name)
    try:
        for number, row in enumerate(_rows(path), start=1):
            yield row, Place(f"{name}:{number}", split, want, prefix)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _rows(path: Path) -> Iterator[Any]:
    if path.suffix == ".parquet":
        yield from _parquet(path)
    elif path.suffix == ".json":
        yield from _list(path)
    else:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            yield from (_parse(line) for line in file if line.strip())


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return BadRowError("not_json")


def _list(path: Path) -> Iterator[Any]:
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error}). A file of one object per line must end in .jsonl.") from error
    if not isinstance(value, list):
        raise DataError(f"{path}: expected a list of rows, found {type(value).__name__}.")
    yield from value


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=4096):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} is not a readable parquet file ({str(error).splitlines()[0]}).") from error
