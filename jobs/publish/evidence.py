"""What a run can prove about its rows: the data stage's manifest, the data report, the constitution, all checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.common.constitution import Constitution, constitution_path
from jobs.common.context import RunContext
from jobs.common.data_stage import data_folder, data_stage
from jobs.common.errors import ConfigError, DataError
from jobs.common.jsonl import read_json, sha256_file
from jobs.common.manifest import finished_manifest

TABLES = ("train_sft", "test_sft", "train_prefs", "test_prefs")
"""Parquet files of a data stage, without their ending."""


@dataclass(frozen=True)
class Evidence:
    """Everything the card is written from."""

    stage: str
    """`generate` or `repair`: who wrote the rows."""
    folder: Path
    """Its folder."""
    manifest: Mapping[str, Any]
    manifest_sha256: str
    written: Mapping[str, Any]
    """Generate's manifest, which names the models; the same as `manifest` where nothing was repaired."""
    constitution: Constitution
    constitution_file: Path
    figures: Mapping[str, Any] | None
    """The data report's measures.json; None where the rows were not audited."""

    @property
    def red(self) -> list[Mapping[str, Any]]:
        """The gates that fail."""
        return [gate for gate in (self.figures or {}).get("gates", []) if gate["light"] == "red"]

    @property
    def tables(self) -> list[Path]:
        """The parquet files."""
        return [self.folder / "data" / f"{name}.parquet" for name in TABLES]


def gather(context: RunContext) -> Evidence:
    """Read and check what a run has to show.

    Raises:
        ConfigError: no finished data stage, an audit of other rows, or a recipe with another constitution.
        DataError: a file changed since its stage finished, or a gate of the data report stopped the run.
    """
    stage, folder = data_stage(context), data_folder(context)
    manifest = finished_manifest(context, stage)
    written = finished_manifest(context, "generate") if stage == "repair" else manifest
    digest = sha256_file(folder / "manifest.json")
    for name in TABLES:
        _unchanged(context, stage, f"data/{name}.parquet", manifest)
    constitution = context.constitution()
    if constitution_sha256(written) != constitution.sha256:
        raise ConfigError(
            f"The rows of {folder} were made with another constitution than {context.recipe.constitution!r} is now. "
            f"Give the run's recipe (--recipe), or run: {context.command('generate', '--redo')}"
        )
    file = constitution_path(context.recipe.constitution)
    figures = _figures(context, stage, digest)
    return Evidence(stage, folder, manifest, digest, written, constitution, file, figures)


def constitution_sha256(manifest: Mapping[str, Any]) -> str | None:
    """Hash of the constitution behind a generate stage, as its manifest names it; None where it names none."""
    found = manifest["ingredients"].get("constitution")
    return found.get("sha256") if isinstance(found, dict) else found  # an import keeps the hash alone


def _unchanged(context: RunContext, stage: str, name: str, manifest: Mapping[str, Any]) -> None:
    path = context.folder / stage / name
    if name not in manifest["outputs"]:
        raise DataError(
            f"{path.parent} holds no tables of {stage}: an import writes none. Only generated rows are published; "
            f"to generate some, choose a new run or: {context.command('generate', '--redo')}"
        )
    if not path.exists() or sha256_file(path) != manifest["outputs"][name]:
        state = "changed" if path.exists() else "vanished"
        raise DataError(f"{path} {state} since {stage} finished. Run: {context.command(stage, '--redo')}")


def _figures(context: RunContext, stage: str, digest: str) -> Mapping[str, Any] | None:
    folder = context.folder / "audit"
    path, again = folder / "measures.json", context.command("audit")
    if not path.exists():
        return None
    found = read_json(path)
    if not (folder / "manifest.json").exists():
        # Where a gate stops a run, the report is written and the stage is not finished.
        failing = ", ".join(gate["name"] for gate in found.get("gates", []) if gate["light"] == "red")
        if not failing:
            raise ConfigError(f"{folder} has not finished (manifest.json missing). Run: {again}")
        raise DataError(
            f"{path}: these gates fail: {failing}. Nothing is published. Run: {context.command('repair')}, "
            f"then {again}; or say so in the card: {context.command('audit', '--set audit.on_failure=report')}"
        )
    manifest = finished_manifest(context, "audit")
    if manifest.get("parents", {}).get(stage) != digest:
        raise ConfigError(
            f"{folder} is the report on other rows than {stage}'s. Run: {context.command('audit', '--redo')}"
        )
    _unchanged_figures(path, manifest, context)
    return found


def _unchanged_figures(path: Path, manifest: Mapping[str, Any], context: RunContext) -> None:
    if sha256_file(path) != manifest["outputs"].get("measures.json"):
        raise DataError(f"{path} changed since audit finished. Run: {context.command('audit', '--redo')}")
