"""Prove that a finished training stage can be made again to the bit: `cai verify RUN --stage sft`.

First the files: every output, input and kept checkpoint has the hash that the manifest and the chain name; a chain that
was damaged while the stage trained is said to reach back to the damage alone. Then the last steps are trained again, by
the stage itself, from the last checkpoint but one, in a folder of its own beside the runs; adapter, optimizer, random
state, token counters, and every step's loss and rows must be the recorded ones. Nothing in the run is written.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from jobs.common.console import say
from jobs.common.errors import ConfigError, DataError
from jobs.common.fingerprint import describe_changes
from jobs.common.manifest import finished_manifest
from jobs.common.provenance import provenance
from jobs.common.settings import Recipe
from jobs.common.stage import RunContext
from jobs.train.chain import loss
from jobs.train.checkpoints import CHECKPOINTS, kept_checkpoints, step_of
from jobs.train.device import choose_device, go_offline
from jobs.train.divided import processes
from jobs.train.proof import Check, file_checks, replay_checks, table

CODE = ("lock_sha256", "source_tree_sha256", "python", "platform", "packages")
"""Parts of the provenance that can change a result."""
OWN = {"manifest.json", "begun.json", "progress.json"}
"""JSON files that a stage writes anew; others (what was measured or chosen at its beginning) a resume reads back."""


def run(context: RunContext, section: str) -> None:
    """Check the files, train the last steps again and print what was compared.

    Raises:
        ConfigError: the stage has not finished, or its recipe is of another version.
        DataError: something differs; names the first difference.
    """
    manifest = finished_manifest(context, section)
    context = replace(context, recipe=_recipe(context, section, manifest), redo=False)
    stage = context.folder / section
    kept = kept_checkpoints(stage)
    if not kept:
        raise ConfigError(f"{stage} keeps no checkpoint. Run: {context.command(section, '--redo')}")
    checks = file_checks(stage, manifest, kept)
    _stop_at_difference(context, section, checks, "")
    start = kept[1] if len(kept) > 1 else None
    reason = _differences(manifest)
    if reason:
        say(f"{section}: made elsewhere, which can change the last bits: {reason}")
    with _shadow(context, section, start) as shadow:
        _train(shadow, section)
        checks += replay_checks(stage, shadow.folder / section, step_of(start) if start else 0)
    click.echo(f"{context.run}/{section}: {_from(start, kept[0])}\n{table(checks)}")
    _stop_at_difference(context, section, checks, reason)
    say(f"{section}: equal, to the bit{_unproven(manifest)}")


def _unproven(manifest: dict[str, Any]) -> str:
    """What equality does not cover: the way to a checkpoint whose chain was damaged while the stage trained."""
    lost = loss(manifest["measures"].get("checkpoints") or [])
    return f"; its chain of checkpoints was damaged and does not reach the start ({lost})" if lost else ""


def _train(context: RunContext, section: str) -> None:
    from jobs.train import dpo, sft

    {"sft": sft.run, "dpo": dpo.run}[section](context)


def _recipe(context: RunContext, section: str, manifest: dict[str, Any]) -> Recipe:
    try:
        return Recipe.model_validate(manifest["recipe"])
    except (KeyError, ValidationError) as error:
        raise ConfigError(
            f"{context.folder / section / 'manifest.json'}: its recipe is of another version of this project "
            f"({str(error).splitlines()[0]}). Verify it with the version of git_commit {manifest.get('git_commit')}."
        ) from error


def _differences(manifest: dict[str, Any]) -> str:
    """What differs between the machine and code that made the stage and these, in words."""
    go_offline()
    now = provenance("cuda")
    keys = [key for key in CODE if key in manifest]
    before = {key: manifest[key] for key in keys} | {"device": manifest.get("device")}
    before["processes"] = manifest["measures"].get("processes", 1)
    return describe_changes(
        before, {key: now[key] for key in keys} | {"device": choose_device().name, "processes": processes()}
    )


def _stop_at_difference(context: RunContext, section: str, checks: list[Check], reason: str) -> None:
    first = next((check for check in checks if not check.equal), None)
    if first is None:
        return
    likely = f" The likely reason: {reason}." if reason else ""
    raise DataError(
        f"{context.folder / section}: {first.what}: recorded {first.recorded}, found {first.found}.{likely} "
        f"To make the stage anew: {context.command(section, '--redo')}"
    )


@contextmanager
def _shadow(context: RunContext, section: str, start: Path | None) -> Iterator[RunContext]:
    """The same run in another runs folder: links to everything but this stage, and the stage as it was at `start`."""
    with tempfile.TemporaryDirectory(dir=context.runs, prefix=".verify-") as name:
        runs = Path(name)
        _link_all(context.runs, runs, context.run)
        _link_all(context.folder, runs / context.run, section)
        stage, copy = context.folder / section, runs / context.run / section
        for part in (Path(), Path(CHECKPOINTS)):
            (copy / part).mkdir(parents=True)
            for path in sorted((stage / part).glob("*.json")):
                if path.name not in OWN:
                    shutil.copy2(path, copy / part)
        if start:
            shutil.copytree(start, copy / CHECKPOINTS / start.name, copy_function=_hard_link)
        yield replace(context, runs=runs)


def _link_all(folder: Path, copy: Path, but: str) -> None:
    copy.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if path.name != but and path.is_dir() and not path.name.startswith("."):
            (copy / path.name).symlink_to(path.resolve())


def _hard_link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without them
        shutil.copy2(source, target)


def _from(start: Path | None, last: Path) -> str:
    first = step_of(start) if start else 0
    begun = f"checkpoint-{first}" if start else "the beginning"
    return f"steps {first + 1} to {step_of(last)}, trained again from {begun}"
