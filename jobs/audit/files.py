"""Rows of files with what their names say: split, kind, and the place that a bad row is named by."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.audit.shapes import BadRowError, Place, Want, split_word
from jobs.common.table_files import NotJson, records


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
    for number, row in records(path):
        found = BadRowError("not_json") if isinstance(row, NotJson) else row
        yield found, Place(f"{name}:{number}", split, want, prefix)
