"""One stage of one run: its folder, lock and fingerprint, and the manifest that proves it finished.

    with open_stage(context, StagePlan("sft", ingredients, parents=("fetch", "generate"), lock="cuda")) as stage:
        if stage is None:       # finished before with the same fingerprint; the line is already printed
            return
        ...                     # write files below stage.folder
        stage.finish(Result(outputs=[...], counts={...}))

A fingerprint is the hash of everything that can change the stage's output. Another fingerprint in the same folder
stops the job and says what changed; nothing is overwritten.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobs.common.console import say
from jobs.common.context import RunContext
from jobs.common.errors import ConfigError, DataError
from jobs.common.fingerprint import describe_changes
from jobs.common.jsonl import remove_unfinished, sha256_file, sha256_json, write_json
from jobs.common.manifest import checked_json, finished_manifest
from jobs.common.provenance import Lock, lock_sha256, provenance
from jobs.common.runlock import run_lock

__all__ = ["OpenStage", "Result", "RunContext", "StagePlan", "open_stage"]


@dataclass(frozen=True)
class StagePlan:
    """What a stage is about to do."""

    name: str
    ingredients: dict[str, Any]
    """JSON values that can change the output: recipe section, hashes, seeds, prompt versions."""
    parents: tuple[str, ...]
    """Stages whose outputs it reads."""
    lock: Lock


@dataclass(frozen=True)
class Result:
    """What a stage has to show for itself."""

    outputs: list[Path]
    """Files below the stage's folder that others read."""
    counts: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    """Rows dropped, by reason."""
    tokens: dict[str, int] = field(default_factory=dict)
    cost_usd: float | None = None
    device: str = "cpu"
    measures: dict[str, Any] = field(default_factory=dict)
    """Figures of this stage, such as losses; None where unknown."""


@dataclass(frozen=True)
class OpenStage:
    """A stage that holds the run's lock and may write."""

    context: RunContext
    plan: StagePlan
    folder: Path
    fingerprint: str
    inputs: dict[str, str]
    parents: dict[str, str]
    started: float

    def finish(self, result: Result) -> None:
        """Write manifest.json, the proof that the stage is done; always the last file."""
        outputs = {str(path.relative_to(self.folder)): sha256_file(path) for path in result.outputs}
        shown = asdict(result) | {"outputs": outputs}
        manifest = {
            "stage": self.plan.name,
            "run": self.context.run,
            "fingerprint": self.fingerprint,
            "ingredients": self.plan.ingredients,
            "recipe": self.context.recipe.model_dump(mode="json"),
            "seed": self.context.recipe.seed,
            "inputs": self.inputs,
            "parents": self.parents,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "wall_s": round(time.monotonic() - self.started, 3),
            **shown,
            **provenance(self.plan.lock),
        }
        (self.folder / "progress.json").unlink(missing_ok=True)
        write_json(self.folder / "manifest.json", manifest)


@contextmanager
def open_stage(context: RunContext, plan: StagePlan) -> Iterator[OpenStage | None]:
    """Take the run's lock and open a stage, or yield None where it finished before.

    Raises:
        ConfigError: a parent has not finished, or the folder belongs to another fingerprint.
        DataError: a manifest is damaged, or a parent's output changed since it was written.
        StoppedError: another process holds the run.
    """
    folder = context.folder / plan.name
    manifests = {parent: finished_manifest(context, parent) for parent in plan.parents}
    inputs = {
        f"{parent}/{name}": digest for parent, found in manifests.items() for name, digest in found["outputs"].items()
    }
    ingredients = plan.ingredients | {"inputs": inputs, "lock_sha256": lock_sha256(plan.lock)}
    plan = StagePlan(plan.name, ingredients, plan.parents, plan.lock)
    fingerprint = sha256_json(ingredients)
    if not context.redo and _already_finished(context, plan, fingerprint):
        yield None
        return
    with run_lock(context.folder, plan.name):
        if context.redo:
            _verify_inputs(context, inputs)  # first: a finished output is not moved for a stage that cannot begin
            _set_aside(folder)
        elif _already_finished(context, plan, fingerprint):  # by a process that held the lock until now
            yield None
            return
        _begin(context, plan, fingerprint)
        _verify_inputs(context, inputs)
        parents = {parent: sha256_file(context.folder / parent / "manifest.json") for parent in plan.parents}
        yield OpenStage(context, plan, folder, fingerprint, inputs, parents, time.monotonic())


def _already_finished(context: RunContext, plan: StagePlan, fingerprint: str) -> bool:
    folder = context.folder / plan.name
    if not (folder / "manifest.json").exists():
        return False
    manifest = finished_manifest(context, plan.name)
    if manifest["fingerprint"] != fingerprint:
        raise _other_settings(context, plan, "finished", manifest["ingredients"])
    for name in manifest["outputs"]:
        if not (folder / name).exists():
            raise DataError(f"{folder / name} is missing. Run: {context.command(plan.name, '--redo')}")
    say(f"{plan.name}: already finished ({folder})")
    return True


def _begin(context: RunContext, plan: StagePlan, fingerprint: str) -> None:
    folder = context.folder / plan.name
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)  # the lock is held: nobody else is writing here
    begun = folder / "begun.json"
    if begun.exists():
        try:
            before = checked_json(begun, {"fingerprint": str, "ingredients": dict})
        except DataError as error:
            raise DataError(f"{error} Run: {context.command(plan.name, '--redo')}") from error
        if before["fingerprint"] != fingerprint:
            raise _other_settings(context, plan, "begun", before["ingredients"])
    else:
        found = {"fingerprint": fingerprint, "ingredients": plan.ingredients, "command": context.command(plan.name)}
        write_json(begun, found)


def _other_settings(context: RunContext, plan: StagePlan, state: str, before: dict[str, Any]) -> ConfigError:
    return ConfigError(
        f"{context.folder / plan.name} was {state} with other settings: {describe_changes(before, plan.ingredients)}. "
        f"Keep it and choose a new run (CAI_RUN or --run), or run: {context.command(plan.name, '--redo')}"
    )


def _set_aside(folder: Path) -> None:
    if folder.exists():
        number = 1
        while (aside := folder.with_name(f"{folder.name}.replaced-{number}")).exists():
            number += 1
        folder.rename(aside)
        say(f"{folder.name}: the earlier output was moved to {aside}")


def _verify_inputs(context: RunContext, inputs: dict[str, str]) -> None:
    for name, digest in inputs.items():
        path = context.folder / name
        if not path.exists() or sha256_file(path) != digest:
            stage = name.split("/")[0]
            state = "changed" if path.exists() else "vanished"
            raise DataError(f"{path} {state} since {stage} finished. Run: {context.command(stage, '--redo')}")
