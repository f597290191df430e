"""The original authors' JSON, read strictly.

Three shapes share keys: `"3"` is the fourth principle of their list, `"3_4"` its fifth prompt. Red-team prompts are
`{"<principle>": [row, ...]}`; the other two are `{"<principle>_<prompt>": [row]}` or, in files of another date,
`{"<principle>": [row, ...]}`, whose rows name their prompt by its text alone. A key holds a list of rows, or one row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.common.errors import DataError
from jobs.common.jsonl import read_json

RED_TEAM_FIELD = "adversarial_prompt"
PREFERENCE_FIELDS = {"prompt": "prompt", "chosen": "chosen_response", "rejected": "rejected_response"}
"""Our name → theirs, of the preference file."""
SFT_FIELDS = {
    "prompt": "initial_prompt",
    "initial_response": "initial_response",
    "critique_request": "critique_prompt",
    "critique": "critique_response",
    "revision_request": "revision_prompt",
    "revision": "revision_response",
}
"""Our name → theirs, of the SFT file."""
ALSO_CALLED = {"critique_prompt": "critic_prompt", "critique_response": "critic_response"}
"""Their name → the name that other files of theirs have for it."""


@dataclass(frozen=True)
class Row:
    """One row of the SFT or preference file, under our names."""

    path: Path
    key: str
    """`3_4`, or `3` where the file does not number its prompts."""
    texts: dict[str, str]
    """Every field asked for; empty where it is in `missing`."""
    missing: tuple[str, ...] = ()
    """Fields, under their names, that are absent or no text."""

    @property
    def principle(self) -> str:
        """List position of the principle, from 0."""
        return self.key.split("_")[0]


def read_red_team(path: Path) -> dict[str, str]:
    """Red-team prompts by `<principle>_<prompt>` key, numbered from 0 as in the other two files."""
    prompts: dict[str, str] = {}
    for key, rows in _groups(path):
        for number, row in enumerate(rows):
            name = f"{key}_{number}" if "_" not in key else key
            where = f"{path}: {key}[{number}]"
            if name in prompts:
                raise DataError(f"{where}: a second row for one prompt.")
            texts, missing = _texts(where, row, {"prompt": RED_TEAM_FIELD})
            if missing:
                raise DataError(f"{where}: {RED_TEAM_FIELD} missing or not a text. Were the three files mixed up?")
            prompts[name] = texts["prompt"]
    return prompts


def read_rows(path: Path, fields: dict[str, str]) -> Iterator[Row]:
    """Rows of the SFT or preference file; `fields` maps our name to theirs."""
    for key, rows in _groups(path):
        for number, row in enumerate(rows):
            texts, missing = _texts(f"{path}: {key}[{number}]", row, fields)
            yield Row(path, key, texts, missing)


def _groups(path: Path) -> Iterator[tuple[str, list[Any]]]:
    if not path.exists():
        raise DataError(f"{path} does not exist.")
    for key, rows in read_json(path).items():
        if not re.fullmatch(r"\d+(_\d+)?", key):
            raise DataError(
                f"{path}: key {key!r} is no principle number such as '3' or '3_4'. Were the three files mixed up?"
            )
        if not isinstance(rows, list | dict):
            raise DataError(f"{path}: {key}: expected a list of rows, found {type(rows).__name__}.")
        yield key, rows if isinstance(rows, list) else [rows]


def _texts(where: str, row: Any, fields: dict[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object, found {type(row).__name__}.")
    found = {ours: row.get(theirs, row.get(ALSO_CALLED.get(theirs, ""))) for ours, theirs in fields.items()}
    texts = {ours: text if isinstance(text, str) else "" for ours, text in found.items()}
    return texts, tuple(fields[ours] for ours, text in found.items() if not isinstance(text, str))
