"""Checkpoints that are whole or not used: a manifest with the hash of every file, written last.

Resume takes the newest whole one. A half-written one is removed and a damaged one moved aside, both by name. Each
manifest holds the hash of the checkpoint it went on from (jobs/train/chain.py).

A checkpoint takes about three times the adapter (weights in fp32, AdamW's two moments): 60 MB for SmolLM2-135M at rank
16, 0.5 GB for Mistral-7B. Two are kept while a stage trains and after it, for `cai verify`; `--redo` removes them.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from jobs.common.console import say
from jobs.common.errors import DataError
from jobs.common.jsonl import read_json, sha256_file, sync_folder, write_json
from jobs.train.chain import MANIFEST, Link, add_link, link_of, marked, mend_chain, read_links, restore_link

CHECKPOINTS = "checkpoints"
"""Folder of a stage that holds them."""
KEPT = 2
"""Whole checkpoints kept; older ones are removed."""
VERIFY_STEPS = 4
"""A checkpoint is written so many steps before the end, from which `cai verify` trains again."""


def save_due(step: int, max_steps: int) -> bool:
    """Whether a checkpoint is due after this step, whatever the clock says."""
    return step in (max_steps - VERIFY_STEPS, max_steps)


def seal_checkpoint(folder: Path) -> None:
    """Make everything durable, then write the manifest that makes the checkpoint count; drop the oldest ones."""
    _mend(folder.parent.parent)
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    files.pop(MANIFEST, None)
    digests = {}
    for name, path in files.items():
        with path.open("rb") as file:
            os.fsync(file.fileno())
        digests[name] = sha256_file(path)
    sync_folder(folder)
    before = next((path for path in _newest_first(folder.parent) if path != folder and _sealed(path)), None)
    manifest = {
        "step": step_of(folder),
        "previous": sha256_file(before / MANIFEST) if before else None,
        "tokens": _tokens(folder),
        "files": digests,
    }
    write_json(folder / MANIFEST, manifest)
    sync_folder(folder.parent)
    add_link(folder.parent.parent, link_of(folder))
    _keep_newest(folder.parent)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; on the way half-written ones are removed and damaged ones moved aside, by name.

    A damaged chain is mended first, by name too: it takes no part in the choice.
    """
    _mend(folder.parent)
    for path in _newest_first(folder):
        if not _sealed(path):
            shutil.rmtree(path)
            say(f"Checkpoint {path} was not written to its end; removed")
            continue
        fault = checkpoint_fault(path)
        if fault is None:
            _go_on_from(path)
            return path
        number = 1
        while (aside := path.with_name(f"damaged-{path.name}-{number}")).exists():
            number += 1
        path.rename(aside)
        say(f"Checkpoint {path} is damaged ({fault}); moved to {aside.name}, going on from the one before it")
    return None


def newest_whole(stage: Path) -> Path | None:
    """The checkpoint that `newest_checkpoint` will find in a stage's folder; nothing is moved and nothing said."""
    return next((path for path in kept_checkpoints(stage) if checkpoint_fault(path) is None), None)


def chain(stage: Path) -> list[Link]:
    """Every checkpoint of a stage for its manifest, oldest first, each marked as superseded by a resume or not."""
    _mend(stage)
    return marked(read_links(stage))


def kept_checkpoints(stage: Path) -> list[Path]:
    """Sealed checkpoints of a stage, newest first."""
    return [path for path in _newest_first(stage / CHECKPOINTS) if _sealed(path)]


def keep_for_verify(stage: Path) -> None:
    """Called when all that is missing of the stage is its manifest: the two newest checkpoints stay for `cai verify`.

    Older ones, which a kill may have left half-removed, and damaged ones go, and so do those of earlier outputs that
    `--redo` moved aside.
    """
    _keep_newest(stage / CHECKPOINTS)
    for damaged in (stage / CHECKPOINTS).glob("damaged-*"):
        shutil.rmtree(damaged)
    for replaced in stage.parent.glob(f"{stage.name}.replaced-*"):
        if (replaced / MANIFEST).exists():
            shutil.rmtree(replaced / CHECKPOINTS, ignore_errors=True)


def step_of(checkpoint: Path) -> int:
    """Optimizer steps behind a checkpoint."""
    return int(checkpoint.name.rsplit("-", 1)[-1])


def checkpoint_fault(checkpoint: Path) -> str | None:
    """What is wrong with a sealed checkpoint; None where every file has the hash of its manifest."""
    try:
        manifest = read_json(checkpoint / MANIFEST)
        files: dict[str, Any] = manifest["files"]
        link_of(checkpoint)
    except (DataError, KeyError, AttributeError):
        return "manifest.json is not readable"
    for name, digest in files.items():
        path = checkpoint / name
        if not path.exists():
            return f"{name} is missing"
        if sha256_file(path) != digest:
            return f"{name} changed"
    return None


def _mend(stage: Path) -> None:
    """Keep a damaged chain aside, by name; links lost with it, or between seal and chain, are written now."""
    mend_chain(stage)
    for path in reversed(kept_checkpoints(stage)):
        known = sha256_file(path / MANIFEST) in [link["sha256"] for link in read_links(stage)]
        if not known and checkpoint_fault(path) is None:
            restore_link(stage, link_of(path))


def _go_on_from(checkpoint: Path) -> None:
    """Name what the resume supersedes."""
    stage = checkpoint.parent.parent
    links, link = read_links(stage), link_of(checkpoint)
    hashes = [one["sha256"] for one in links]
    for later in links[len(hashes) - hashes[::-1].index(link["sha256"]) :]:
        say(f"The checkpoint of step {later['step']} is superseded by the resume from step {link['step']}")


def _keep_newest(folder: Path) -> None:
    found = _newest_first(folder)
    sealed = [path for path in found if _sealed(path)]
    if len(sealed) >= KEPT:
        for old in found[found.index(sealed[KEPT - 1]) + 1 :]:
            shutil.rmtree(old)


def _tokens(checkpoint: Path) -> int:
    history = read_json(checkpoint / "trainer_state.json")["log_history"]
    return max((int(entry.get("num_tokens", 0)) for entry in history), default=0)


def _sealed(checkpoint: Path) -> bool:
    return (checkpoint / MANIFEST).exists()


def _newest_first(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("checkpoint-*") if path.is_dir() and path.name.rsplit("-", 1)[-1].isdigit()]
    return sorted(found, key=step_of, reverse=True)
