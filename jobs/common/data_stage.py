"""Which stage's rows a run trains on: repair's where it ran, else generate's."""

from __future__ import annotations

from pathlib import Path

from jobs.common.context import RunContext
from jobs.common.errors import ConfigError
from jobs.common.jsonl import sha256_file
from jobs.common.stage import finished_manifest


def data_stage(context: RunContext) -> str:
    """Name of the stage whose files every later stage reads: `repair` or `generate`.

    Raises:
        ConfigError: repair was made of an earlier generate.
    """
    repaired = context.folder / "repair" / "manifest.json"
    if not repaired.exists():
        return "generate"
    written = context.folder / "generate" / "manifest.json"
    parents = finished_manifest(context, "repair").get("parents") or {}
    if written.exists() and parents.get("generate") != sha256_file(written):
        raise ConfigError(
            f"{repaired} was made of an earlier generate. Run: cai repair --run {context.run} --redo, "
            f"or move {repaired.parent} away."
        )
    return "repair"


def data_folder(context: RunContext) -> Path:
    """Folder of those files."""
    return context.folder / data_stage(context)
