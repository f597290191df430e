"""Put a run's data together for the Hub and push it: `cai publish data --licence cc-by-4.0 --repo OWNER/NAME`.

`runs/<run>/publish/data/` holds what is uploaded: the four parquet files, README.md with the numbers of the data
report, the constitution and the manifest without private paths. A failed gate is published only where the recipe's
`audit.on_failure` is `report`, and then the card says so at its top.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from jobs.common.console import say
from jobs.common.context import RunContext
from jobs.common.errors import DataError
from jobs.common.jsonl import write_atomic
from jobs.common.runlock import run_lock
from jobs.publish.data_card import data_card
from jobs.publish.evidence import Evidence, gather
from jobs.publish.sending import check_names, files_of, send, show, write_manifest


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
    check_names(repo, licence)
    with run_lock(context.folder, "publish"):
        evidence = gather(context)
        folder = _assemble(context, evidence, licence)
        if dry_run:
            show(folder)
            return
        address = send(context, folder, repo, kind="dataset", private=private)
    say(f"publish: {len(files_of(folder))} files of {evidence.stage} in one commit: {address}")


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
    write_manifest(building / "manifest.json", evidence.manifest)
    if evidence.stage != "generate":
        write_manifest(building / "generate-manifest.json", evidence.written)
    write_atomic(building / "README.md", data_card(evidence, rows, licence).encode())
    shutil.rmtree(folder, ignore_errors=True)
    building.replace(folder)
    return folder


def _rows(table: Path) -> int:
    from pyarrow import parquet

    return int(parquet.read_metadata(table).num_rows)
