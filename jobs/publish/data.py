"""Put a run's data together for the Hub and push it: `cai publish data --licence cc-by-4.0 --repo OWNER/NAME`.

`runs/<run>/publish/data/` holds what is uploaded: the four parquet files, README.md with the numbers of the data
report, the constitution and the manifest without private paths. A failed gate is published only where the recipe's
`audit.on_failure` is `report`, and then the card says so at its top.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.common.console import say
from jobs.common.context import RunContext
from jobs.common.errors import ConfigError, DataError
from jobs.common.jsonl import read_json, sha256_file, write_atomic, write_json
from jobs.common.runlock import run_lock
from jobs.publish.data_card import data_card
from jobs.publish.evidence import Evidence, gather
from jobs.publish.hub import REPO, VARIABLE, push, write_token
from jobs.publish.shareable import shareable

LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
HEAD_LINES = 40
"""Lines of the card that a dry run prints."""


def publish_data(context: RunContext, repo: str | None, licence: str, dry_run: bool, private: bool) -> None:
    """Assemble the run's data and push it as one commit.

    Args:
        context: which run.
        repo: `OWNER/NAME` on the Hub; None only with `dry_run`.
        licence: the Hub's identifier, such as `cc-by-4.0`.
        dry_run: show files and card, and send nothing.
        private: make the repository private where it does not exist; a public one is refused.

    Raises:
        ConfigError: a wrong name, no token, a refused token, or nothing finished to publish.
        DataError: a gate fails, a file changed, no table has a row, or the Hub refuses the files.
        UnavailableError: the Hub does not answer.
    """
    if repo is not None and not REPO.fullmatch(repo):
        raise ConfigError(f"--repo: found {repo!r}. Expected OWNER/NAME.")
    if not LICENCE.fullmatch(licence):
        raise ConfigError(
            f"--licence: found {licence!r}. Expected the Hub's identifier, such as cc-by-4.0 or apache-2.0."
        )
    with run_lock(context.folder, "publish"):
        evidence = gather(context)
        folder = _assemble(context, evidence, licence)
        if dry_run:
            _show(folder)
            return
        token = write_token()
        if repo is None or token is None:
            raise ConfigError(f"{_missing(repo)} Everything is put together in {folder}; nothing was sent.")
        address = push(folder, repo, token, private=private)
        _remember(context, folder, repo, address)
    say(f"publish: {len(_files(folder))} files of {evidence.stage} in one commit: {address}")


def _assemble(context: RunContext, evidence: Evidence, licence: str) -> Path:
    """Write the folder anew and swap it in whole."""
    folder = context.folder / "publish" / "data"
    building = folder.with_name(".data.building")
    rows = {path.stem: _rows(path) for path in evidence.tables}
    if not any(rows.values()):
        raise DataError(
            f"{evidence.folder / 'data'}: its tables have no rows, so there is nothing to publish. What was dropped, "
            f"and why, is in {evidence.folder / 'dropped.jsonl'}."
        )
    shutil.rmtree(building, ignore_errors=True)
    (building / "data").mkdir(parents=True)
    for path in evidence.tables:
        shutil.copyfile(path, building / "data" / path.name)
    shutil.copyfile(evidence.constitution_file, building / "constitution.yaml")
    _write_manifest(building / "manifest.json", evidence.manifest)
    if evidence.stage != "generate":
        _write_manifest(building / "generate-manifest.json", evidence.written)
    write_atomic(building / "README.md", data_card(evidence, rows, licence).encode())
    shutil.rmtree(folder, ignore_errors=True)
    building.replace(folder)
    return folder


def _write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    write_json(path, shareable({key: value for key, value in manifest.items() if key != "platform"}))


def _rows(table: Path) -> int:
    from pyarrow import parquet

    return int(parquet.read_metadata(table).num_rows)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _show(folder: Path) -> None:
    files = _files(folder)
    for path in files:
        print(f"{path.relative_to(folder).as_posix():<28} {path.stat().st_size:>12,}  {sha256_file(path)}")
    print()
    card = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    print("\n".join(card[:HEAD_LINES]))
    say(f"publish: {len(files)} files in {folder}; nothing was sent (--dry-run)")


def _missing(repo: str | None) -> str:
    if repo is None:
        return "--repo is missing: give OWNER/NAME."
    return (
        f"No write token: set {VARIABLE}, or {VARIABLE}_FILE to a file that holds it (HF_TOKEN is fetch's read token "
        f"and is not used to write)."
    )


def _remember(context: RunContext, folder: Path, repo: str, address: str) -> None:
    files = {path.relative_to(folder).as_posix(): sha256_file(path) for path in _files(folder)}
    path = context.folder / "publish" / "data.json"
    before = read_json(path)["published"] if path.exists() else []
    write_json(path, {"published": [*before, {"repo": repo, "commit": address, "files": files}]})
