"""The original authors' three JSON files, as the measures see them, with every corrupted row left in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.common.constitution import Constitution
from jobs.common.errors import DataError
from jobs.common.jsonl import read_json, sha256_file
from jobs.common.original import RED_TEAM_FIELD, read_red_team, read_rows
from jobs.measure.data import Data, Example, Pair, PrincipleText, Prompt

_ANSWER = "correct_model_response_to_adversarial_prompt"
_INVENTED = "incorrect_model_response_to_adversarial_prompt"
_SFT = {"prompt": "initial_prompt", "initial": "initial_response", "critique": "critique_response"} | {
    "completion": "revision_response"
}
_PAIRS = {"prompt": "prompt", "chosen": "chosen_response", "rejected": "rejected_response"}


def read_original(path: Path, constitution: Constitution | None = None) -> Data:
    """Read the files of a folder, or one of them.

    Args:
        path: a folder with at most one red-team, SFT and preference file each, or one such file.
        constitution: names the principles, which the files know by position; without it `0`, `1`, ... are their ids.

    Raises:
        DataError: none of the three shapes, two files of one shape, or a key past the constitution.
    """
    files = files_by_shape(path)
    prompts = read_red_team(files["red_team"]) if "red_team" in files else {}
    answers = _answers(files["red_team"]) if "red_team" in files else {}
    names = _Names(path, constitution)
    examples = [
        Example(id=row.key, principle_id=names.of(row.key), source_prompt=prompts.get(row.key, ""), **row.texts)
        for row in (read_rows(files["sft"], _SFT) if "sft" in files else ())
    ]
    pairs = [
        Pair(row.key, names.of(row.key), row.texts["prompt"], row.texts["chosen"], row.texts["rejected"])
        for row in (read_rows(files["pairs"], _PAIRS) if "pairs" in files else ())
    ]
    invented = sum(row.initial.strip() == answers.get(row.id, ("", ""))[1].strip() for row in examples)
    sheet: dict[str, Any] = {"sha256": {file.name: sha256_file(file) for file in files.values()}}
    if examples and answers:
        sheet["initial responses that are the red-team file's invented bad answer"] = f"{invented} of {len(examples)}"
    return Data(
        name=path.name,
        prompts=[
            Prompt(id=key, principle_id=names.of(key), text=text, answer=answers.get(key, ("", ""))[0])
            for key, text in prompts.items()
        ],
        examples=examples,
        pairs=pairs,
        principles=[PrincipleText(one.id, one.title, one.text) for one in constitution.principles]
        if constitution
        else [],
        datasheet=sheet,
        language=constitution.language if constitution else "en",
        constitution=constitution.name if constitution else "",
    )


class _Names:
    """Principle ids by the position in a key such as `3_4`."""

    def __init__(self, path: Path, constitution: Constitution | None) -> None:
        self._path = path
        self._constitution = constitution

    def of(self, key: str) -> str:
        """The principle of a row."""
        position = int(key.partition("_")[0])
        if self._constitution is None:
            return str(position)
        known = self._constitution.principles
        if position >= len(known):
            raise DataError(
                f"{self._path}: key {key!r} is of principle number {position + 1}, but {self._constitution.name} has "
                f"{len(known)}. Choose the constitution the data was made for: --constitution ..."
            )
        return known[position].id


def files_by_shape(path: Path) -> dict[str, Path]:
    """The files of a folder, or the one file, by what their first row holds: `red_team`, `sft`, `pairs`."""
    files: dict[str, Path] = {}
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
        shape = _shape(read_json(file))
        if shape and shape in files:
            raise DataError(f"{path}: {files[shape].name} and {file.name} are both of the shape {shape}. Keep one.")
        if shape:
            files[shape] = file
    if not files:
        raise DataError(f"{path}: no file here has the shape of the original's red-team, SFT or preference JSON.")
    return files


def _shape(content: dict[str, Any]) -> str | None:
    rows = next(iter(content.values()), None)
    row = rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else {}
    marks = {RED_TEAM_FIELD: "red_team", _SFT["completion"]: "sft", _PAIRS["chosen"]: "pairs"}
    return next((shape for mark, shape in marks.items() if mark in row), None)


def _answers(path: Path) -> dict[str, tuple[str, str]]:
    """The red-team file's own "correct" and invented "incorrect" answers by key; empty texts where it has none."""
    return {
        f"{key}_{number}": (str(row.get(_ANSWER) or ""), str(row.get(_INVENTED) or ""))
        for key, rows in read_json(path).items()
        for number, row in enumerate(rows)
    }
