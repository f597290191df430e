"""Put a run's model together for the Hub and push it: `cai publish model --licence apache-2.0 --repo OWNER/NAME`.

`runs/<run>/publish/model/` holds what is uploaded: both adapters in `sft/` and `dpo/`, the merged model at the top
where `cai export` wrote one, curves, the constitution, the manifests without private paths, and README.md.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from jobs.common.console import say
from jobs.common.context import RunContext
from jobs.common.jsonl import read_json, write_atomic, write_json
from jobs.common.runlock import run_lock
from jobs.publish.model_card import model_card
from jobs.publish.model_evidence import ModelEvidence, gather_model
from jobs.publish.sending import check_names, files_of, send, show, write_manifest

CURVES = "-curves.png"
"""Ending of the pictures that training leaves in the run's folder, after the stage's name."""


def publish_model(context: RunContext, repo: str | None, licence: str, dry_run: bool, private: bool) -> None:
    """Assemble the run's model and push it as one commit.

    Args:
        context: which run.
        repo: `OWNER/NAME` on the Hub; None only with `dry_run`.
        licence: the Hub's identifier, such as `apache-2.0`.
        dry_run: show files and card, and send nothing.
        private: make the repository private where it does not exist; a public one is refused.

    Raises:
        ConfigError: a wrong name, no token, a refused token, or a stage that has not finished.
        DataError: a file changed, or the Hub refuses the files.
        UnavailableError: the Hub does not answer.
    """
    check_names(repo, licence)
    with run_lock(context.folder, "publish"):
        evidence = gather_model(context)
        folder = _assemble(context, evidence, repo, licence)
        if dry_run:
            show(folder)
            return
        address = send(context, folder, repo, kind="model", private=private)
    say(f"publish: {len(files_of(folder))} files of sft and dpo in one commit: {address}")


def _assemble(context: RunContext, evidence: ModelEvidence, repo: str | None, licence: str) -> Path:
    """Write the folder anew and swap it in whole."""
    folder = context.folder / "publish" / "model"
    building = folder.with_name(".model.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    if evidence.exported:
        for path in sorted((evidence.folder / "export").rglob("*")):
            if path.relative_to(evidence.folder / "export").as_posix() in evidence.exported["outputs"]:
                _place(path, building / path.name)
    for stage in ("sft", "dpo"):
        shutil.copytree(evidence.folder / stage / "adapter", building / stage)
        _name_base(building / stage / "adapter_config.json", evidence)
        if (picture := evidence.folder / f"{stage}{CURVES}").exists():
            shutil.copyfile(picture, building / picture.name)
    for name, manifest in evidence.stages.items():
        write_manifest(building / f"{name}-manifest.json", manifest)
    shutil.copyfile(evidence.constitution_file, building / "constitution.yaml")
    curves = [name for name in (f"{stage}{CURVES}" for stage in ("sft", "dpo")) if (building / name).exists()]
    write_atomic(building / "README.md", model_card(evidence, repo or "OWNER/NAME", licence, curves).encode())
    shutil.rmtree(folder, ignore_errors=True)
    building.replace(folder)
    return folder


def _place(source: Path, target: Path) -> None:
    """A file of the merged model, which may be large: a second name of the same bytes where the disk can do that."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _name_base(path: Path, evidence: ModelEvidence) -> None:
    """Let the published adapter name a base that everybody can load."""
    if evidence.base:
        base = {"base_model_name_or_path": evidence.base, "revision": evidence.student.revision}
        write_json(path, read_json(path) | base)
