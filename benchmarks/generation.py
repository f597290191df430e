"""Measures the generation engine beside what is possible, and with --peers beside other libraries.

    python -m benchmarks.generation                    # every case, medians of 5
    python -m benchmarks.generation --only plain --only limit --peers
    python -m benchmarks.generation --quick            # one small repeat, to see that it runs

Every case starts its own server (tests/fakes/load_server.py), drives the engine with its default settings in a process
of its own, and counts by the server's books. Exit code 1: a bar was missed. A whole run writes every figure to
benchmarks/results/generation.json.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

import click

from benchmarks import embedded_case, load_cases, restart_cases, scale_cases, table
from benchmarks.children import ROOT, ChildError
from benchmarks.measures import Bench, Case, Measure, Row
from benchmarks.peer_runs import PEERS, install, run_peer, warm_up

CASES = [*load_cases.CASES, *restart_cases.CASES, *scale_cases.CASES, *embedded_case.CASES]
RESULTS = ROOT / "benchmarks" / "results" / "generation.json"


@click.command()
@click.option("--repeats", default=5, show_default=True, help="Repeats of every case; the median counts.")
@click.option(
    "--only", multiple=True, type=click.Choice([case.key for case in CASES]), help="Run this case; repeatable."
)
@click.option("--quick", is_flag=True, help="One repeat, fewer kills and items: shows that it runs, not how fast.")
@click.option("--peers", is_flag=True, help="Also run other libraries, from PyPI in benchmarks/.venvs.")
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), help="Write the tables here too.")
def main(repeats: int, only: tuple[str, ...], quick: bool, peers: bool, markdown: Path | None) -> None:
    """Measure the generation engine; see the top of this file."""
    cases = [case for case in CASES if not only or case.key in only]
    folder = Path(tempfile.mkdtemp(prefix="cai-bench-"))
    try:
        if peers:
            for number, peer in enumerate(PEERS):
                install(peer)
                warm_up(peer, folder / "warm-up" / str(number))
        rows = [_run_case(case, folder / case.key, repeats, quick=quick, peers=peers) for case in cases]
    finally:
        shutil.rmtree(folder)
    parts = [f"Measured {table.machine()}.", table.main_table(rows), table.peer_table(rows), table.notes(rows)]
    text = "\n\n".join(part for part in parts if part)
    print(text)
    if markdown:
        markdown.write_text(f"{text}\n", encoding="utf-8")
    if not quick and not only:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(table.as_json(rows), indent=1), encoding="utf-8")
    sys.exit(0 if all(row.passes for row in rows) else 1)


def _run_case(case: Case, folder: Path, repeats: int, *, quick: bool, peers: bool) -> Row:
    row = Row(case)
    repeats = 1 if quick or case.once else repeats
    can_compare = peers and case.behaviour is not None
    for repeat in range(repeats):
        begun = time.monotonic()
        try:
            row.ours.append(case.run(Bench(folder / f"{repeat}-ours", repeat, quick)))
        except ChildError as error:
            row.ours.append(Measure(float("nan"), holds=False, note=f"failed: {error}"))
        for number, peer in enumerate(PEERS if can_compare else ()):
            bench = Bench(folder / f"{repeat}-peer-{number}", repeat, quick=False)
            row.peers.setdefault(peer.name, []).append(run_peer(peer, case, bench))
        print(f"{case.key} {repeat + 1}/{repeats}: {time.monotonic() - begun:.1f} s, {row.ours[-1]}", file=sys.stderr)
    return row


if __name__ == "__main__":
    main()
