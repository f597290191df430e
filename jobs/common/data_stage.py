"""Which stage's rows a run trains on: repair's where it ran, else generate's."""

from __future__ import annotations

from pathlib import Path

from jobs.common.context import RunContext
from jobs.common.errors import ConfigError
from jobs.common.jsonl import sha256_file
from jobs.common.manifest import finished_manifest


def data_stage(context: RunContext) -> str:
    """Name of the stage whose files every later stage reads: `repair` or `generate`.

    Raises:
        ConfigError: repair was begun and has not finished, or was made of an earlier generate.
        DataError: its manifest is damaged.
    """
    repair, generate = (context.folder / name for name in ("repair", "generate"))
    if not (repair / "manifest.json").exists():
        if (repair / "begun.json").exists():
            raise ConfigError(
                f"{repair} was begun and has not finished (no manifest.json). Go on with: {context.command('repair')}, "
                f"or move {repair} away to use generate's rows."
            )
        return "generate"
    written = generate / "manifest.json"
    parents = finished_manifest(context, "repair").get("parents") or {}
    finished_manifest(context, "generate")  # begun anew and not finished: its repair is not of this run any more
    if parents.get("generate") != sha256_file(written):
        raise ConfigError(
            f"{repair} was made of an earlier generate. Run: {context.command('repair', '--redo')}, "
            f"or move {repair} away."
        )
    return "repair"


def data_folder(context: RunContext) -> Path:
    """Folder of those files."""
    return context.folder / data_stage(context)
