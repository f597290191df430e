"""What a stage left in its folder, read back: manifest.json, the proof that it finished, and begun.json.

finished_manifest(context, "generate")["outputs"]  # {"sft.jsonl": SHA-256, ...}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jobs.common.context import RunContext
from jobs.common.errors import ConfigError, DataError
from jobs.common.jsonl import read_json


def finished_manifest(context: RunContext, stage: str) -> dict[str, Any]:
    """The manifest of a finished stage.

    Raises:
        ConfigError: the stage has not finished.
        DataError: its manifest is damaged.
    """
    path = context.folder / stage / "manifest.json"
    if not path.exists():
        raise ConfigError(
            f'No finished "{stage}" stage in {context.folder} (manifest.json missing). Run: {context.command(stage)}'
        )
    try:
        return checked_json(path, {"outputs": dict, "fingerprint": str, "ingredients": dict})
    except DataError as error:
        raise DataError(f"{error} Run: {context.command(stage, '--redo')}") from error


def checked_json(path: Path, wanted: dict[str, type]) -> dict[str, Any]:
    """An object of a JSON file that a stage left.

    Args:
        path: the file.
        wanted: keys it must have, with the type of their values.

    Raises:
        DataError: it is damaged, or a key is missing or of another type; names the file.
    """
    found = read_json(path)
    for key, kind in wanted.items():
        if key not in found:
            raise DataError(f"{path} is damaged: {key!r} is missing.")
        if not isinstance(found[key], kind):
            raise DataError(f"{path} is damaged: {key} has the wrong type.")
    return found
