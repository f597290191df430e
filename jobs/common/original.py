"""The original authors' JSON, read strictly: `{"<principle>": [row, ...]}` and `{"<principle>_<prompt>": [row]}`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.common.errors import DataError
from jobs.common.jsonl import read_json

RED_TEAM_FIELD = "adversarial_prompt"


@dataclass(frozen=True)
class Row:
    """One row of the SFT or preference file, under our names."""

    path: Path
    key: str
    texts: dict[str, str]


def read_red_team(path: Path) -> dict[str, str]:
    """Red-team prompts by `<principle>_<prompt>` key, numbered from 0 as in the other two files."""
    return {
        f"{key}_{number}": _texts(path, f"{key}[{number}]", row, {"prompt": RED_TEAM_FIELD})["prompt"]
        for key, rows in _groups(path, r"\d+")
        for number, row in enumerate(rows)
    }


def read_rows(path: Path, fields: dict[str, str]) -> Iterator[Row]:
    """Rows of the SFT or preference file; `fields` maps our name to theirs."""
    for key, rows in _groups(path, r"\d+_\d+"):
        for number, row in enumerate(rows):
            yield Row(path, key, _texts(path, f"{key}[{number}]", row, fields))


def _groups(path: Path, key_pattern: str) -> Iterator[tuple[str, list[Any]]]:
    if not path.exists():
        raise DataError(f"{path} does not exist.")
    for key, rows in read_json(path).items():
        if not re.fullmatch(key_pattern, key):
            raise DataError(f"{path}: key {key!r} does not look like {key_pattern}. Were the three files mixed up?")
        if not isinstance(rows, list):
            raise DataError(f"{path}: {key}: expected a list of rows, found {type(rows).__name__}.")
        yield key, rows


def _texts(path: Path, where: str, row: Any, fields: dict[str, str]) -> dict[str, str]:
    if not isinstance(row, dict):
        raise DataError(f"{path}: {where}: expected an object, found {type(row).__name__}.")
    texts = {ours: row.get(theirs) for ours, theirs in fields.items()}
    if bad := [fields[ours] for ours, text in texts.items() if not isinstance(text, str)]:
        raise DataError(f"{path}: {where}: {', '.join(bad)} missing or not a text.")
    return {ours: str(text) for ours, text in texts.items()}
