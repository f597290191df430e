"""Checkpoints that are whole or not used: a manifest with the hash of every file, written last.

Resume takes the newest whole one; a damaged one is moved aside and named.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from jobs.common.console import say
from jobs.common.errors import DataError
from jobs.common.jsonl import read_json, sha256_file, sync_folder, write_json

MANIFEST = "manifest.json"
KEPT = 2
"""Whole checkpoints kept while training; older ones are removed."""


def seal_checkpoint(folder: Path) -> None:
    """Make everything durable, then write the manifest that makes the checkpoint count; drop the oldest ones."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    files.pop(MANIFEST, None)
    digests = {}
    for name, path in files.items():
        with path.open("rb") as file:
            os.fsync(file.fileno())
        digests[name] = sha256_file(path)
    sync_folder(folder)
    write_json(folder / MANIFEST, {"step": step_of(folder), "files": digests})
    sync_folder(folder.parent)
    whole = [path for path in _newest_first(folder.parent) if (path / MANIFEST).exists()]
    for old in whole[KEPT:]:
        shutil.rmtree(old)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; damaged newer ones are renamed and named on the way, none is removed."""
    for path in _newest_first(folder):
        fault = _fault(path)
        if fault is None:
            return path
        number = 1
        while (aside := path.with_name(f"damaged-{path.name}-{number}")).exists():
            number += 1
        path.rename(aside)
        say(f"Checkpoint {path} is damaged ({fault}); moved to {aside.name}, going on from the one before it")
    return None


def step_of(checkpoint: Path) -> int:
    """Optimizer steps behind a checkpoint."""
    return int(checkpoint.name.rsplit("-", 1)[-1])


def _newest_first(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("checkpoint-*") if path.is_dir() and path.name.rsplit("-", 1)[-1].isdigit()]
    return sorted(found, key=step_of, reverse=True)


def _fault(checkpoint: Path) -> str | None:
    manifest = checkpoint / MANIFEST
    if not manifest.exists():
        return "no manifest.json: it was not written to its end"
    try:
        files = read_json(manifest)["files"]
    except (DataError, KeyError):
        return "manifest.json is not readable"
    for name, digest in files.items():
        path = checkpoint / name
        if not path.exists():
            return f"{name} is missing"
        if sha256_file(path) != digest:
            return f"{name} changed"
    return None
