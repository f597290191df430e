"""What a run can prove about its model: manifests that name each other, and files that are as they were written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.common.constitution import Constitution, constitution_path
from jobs.common.context import RunContext
from jobs.common.data_stage import data_stage
from jobs.common.errors import ConfigError, DataError
from jobs.common.fetched import FetchedStudent, load_fetched
from jobs.common.jsonl import read_json, sha256_file
from jobs.common.manifest import finished_manifest
from jobs.publish.evidence import constitution_sha256

Manifest = Mapping[str, Any]

EMBEDDED_BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""The Hub's name of the model whose GGUF comes with us."""


@dataclass(frozen=True)
class ModelEvidence:
    """Everything a model card is written from."""

    folder: Path
    """The run's folder."""
    data_stage: str
    """`generate` or `repair`: who wrote the rows."""
    stages: Mapping[str, Manifest]
    """Manifests by stage: the data stage's, sft, dpo, and export and respond where they ran."""
    digests: Mapping[str, str]
    """SHA-256 of those manifests."""
    written: Manifest
    """Generate's manifest, which names the models behind the rows."""
    student: FetchedStudent
    constitution: Constitution
    constitution_file: Path
    data_repo: str | None
    """Where this run's rows were published."""
    gates: tuple[Mapping[str, Any], ...]
    """The data report's gates; empty where these rows were not audited."""

    @property
    def exported(self) -> Manifest | None:
        """Export's manifest, where a merged model is there."""
        return self.stages.get("export")

    @property
    def base(self) -> str | None:
        """The base's id on the Hub; None for a folder of the user's own."""
        model = self.stages["sft"]["recipe"]["student"]["model"]
        if model == "embedded":
            return EMBEDDED_BASE
        return str(model) if self.student.revision else None


def gather_model(context: RunContext) -> ModelEvidence:
    """Read and check what a run has to show.

    Raises:
        ConfigError: sft, dpo or a begun export has not finished, one of them was made of another's earlier output, or
            the recipe names another constitution.
        DataError: a file changed since its stage finished.
    """
    rows = data_stage(context)
    written = finished_manifest(context, "generate")
    names = [rows, "sft", "dpo", *_extras(context)]
    stages = {name: finished_manifest(context, name) for name in names}
    digests = {name: sha256_file(context.folder / name / "manifest.json") for name in names}
    if rows not in stages["sft"]["parents"]:
        raise ConfigError(
            f"{context.folder / 'sft'} was trained before {rows} finished, on other rows. "
            f"Run: {context.command('sft', '--redo')}"
        )
    for name in names[1:]:
        _check_parents(context, name, stages[name], digests)
        _check_files(context, name, stages[name])
    constitution = context.constitution()
    if constitution_sha256(written) not in (None, constitution.sha256):
        raise ConfigError(
            f"{context.folder} was made with another constitution than {context.recipe.constitution!r} is now. "
            f"Give the run's recipe (--recipe)."
        )
    published = context.folder / "publish" / "data.json"
    return ModelEvidence(
        context.folder,
        rows,
        stages,
        digests,
        written,
        load_fetched(context).student,
        constitution,
        constitution_path(context.recipe.constitution),
        read_json(published)["published"][-1]["repo"] if published.exists() else None,
        _gates(context, rows, digests[rows]),
    )


def _extras(context: RunContext) -> list[str]:
    """Stages that add to a card: export where it was begun, respond where it finished."""
    export, respond = (context.folder / name for name in ("export", "respond"))
    found = ["export"] if (export / "begun.json").exists() else []
    return [*found, *(["respond"] if (respond / "manifest.json").exists() else [])]


def _check_parents(context: RunContext, name: str, manifest: Manifest, digests: Mapping[str, str]) -> None:
    for parent, digest in manifest["parents"].items():
        if parent in digests and digests[parent] != digest:
            raise ConfigError(
                f"{context.folder / name} was made of an earlier {parent}. Run: {context.command(name, '--redo')}"
            )


def _check_files(context: RunContext, name: str, manifest: Manifest) -> None:
    for file, digest in manifest["outputs"].items():
        path = context.folder / name / file
        if not path.exists() or sha256_file(path) != digest:
            state = "changed" if path.exists() else "vanished"
            raise DataError(f"{path} {state} since {name} finished. Run: {context.command(name, '--redo')}")


def _gates(context: RunContext, rows: str, digest: str) -> tuple[Mapping[str, Any], ...]:
    folder = context.folder / "audit"
    if not (folder / "manifest.json").exists():
        return ()
    manifest = finished_manifest(context, "audit")
    if manifest.get("parents", {}).get(rows) != digest:
        return ()  # a report on earlier rows
    _check_files(context, "audit", manifest)
    return tuple(read_json(folder / "measures.json")["gates"])
