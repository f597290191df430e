"""Kills a training command at random moments, goes on, and compares the adapter with an undisturbed run's.

    python -m benchmarks.kills --student embedded --kills 20 [--by terminate]

A moment is drawn from the whole length of the command (loading, tokenising, steps, evaluation, the last files) or from
the milliseconds in which a checkpoint is written; the first `kill` comes between a step and its checkpoint in any case.
A run that ends all the same is compared and another begun, until the kills are used up; the last run is left to end.
Prints a Markdown table; exit code 1 where an adapter differs.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import click

from benchmarks.forked import Attempts, Moments, Signal, freeze_where, heeds_sigterm
from benchmarks.table import machine
from jobs.common.embedded_gguf import find_embedded_gguf
from jobs.common.errors import StoppedError
from jobs.common.jsonl import read_json
from jobs.train.chain import disorder, loss
from jobs.train.checkpoints import CHECKPOINTS, chain, kept_checkpoints, step_of
from tests.train.builders import finish_fetch, finish_generate, make_context, small_generate

CODES = {"kill": -signal.SIGKILL, "terminate": StoppedError.exit_code}
"""Exit code of a process that the signal ended."""


@dataclass
class Survived:
    """What one trainer went through."""

    stage: str
    undisturbed: str
    """Hash of the adapter of the run that nothing disturbed."""
    kills: int = 0
    within_saves: int = 0
    """Kills that left a checkpoint half-written."""
    replayed: int = 0
    """Steps that had ended and had to be done again."""
    slowest_s: float = 0.0
    """Longest time from a signal to the end of the process."""
    adapters: list[str] = field(default_factory=list)
    """Hash of every run that was finished in spite of the kills."""
    faults: list[str] = field(default_factory=list)
    """Chains with a gap, and attempts that failed by themselves."""

    @property
    def equal(self) -> bool:
        """Whether every run has the undisturbed run's adapter and a whole chain."""
        return bool(self.adapters) and set(self.adapters) == {self.undisturbed} and not self.faults


def survive(attempts: Attempts, kills: int, seed: int, by: Signal = "kill") -> Survived:
    """Kill a stage's command so often, in as many runs as it takes, and let the last one end."""
    draw, stage = random.Random(f"{seed}:{attempts.stage}"), attempts.stage
    run = attempts.copy(f"{stage}-undisturbed").run
    whole_s = _must_end(attempts, run)
    found = Survived(stage, attempts.adapter(run))
    moments = Moments(draw, whole_s, by)
    while found.kills < kills and not found.faults:
        run = attempts.copy(f"{stage}-{len(found.adapters) + 1}").run
        shutil.rmtree(attempts.context.runs / "reference", ignore_errors=True)  # what dpo measures first, once for all
        while found.kills < kills and _killed(attempts, run, found, moments):
            pass
        _must_end(attempts, run)
        _compare(attempts, run, found)
    return found


def _must_end(attempts: Attempts, run: str) -> float:
    """Let the command end; gives the seconds it took."""
    process, began = attempts.start(run), time.monotonic()
    process.join()
    if process.exitcode:
        raise click.ClickException(f"{run}: exit {process.exitcode}: {attempts.said(run)[-2000:]}")
    return time.monotonic() - began


def _killed(attempts: Attempts, run: str, found: Survived, moments: Moments) -> bool:
    """Begin the command and kill it at a random moment; False where it ended before."""
    folder = attempts.context.runs / run / attempts.stage
    process = attempts.start(run)
    if found.kills or moments.by == "terminate":
        moments.wait(process, folder / CHECKPOINTS)
    else:
        freeze_where(process, lambda: _unsaved(folder) > 0)
    began = time.monotonic()
    if moments.by == "kill" or heeds_sigterm(process):
        getattr(process, moments.by)()
    process.join()
    if process.exitcode == CODES[moments.by]:
        found.slowest_s = max(found.slowest_s, time.monotonic() - began)
        _count(folder, found)
        return True
    # A signal that meets a command on its way out, after its handler has gone, ends nothing that was not done.
    late = process.exitcode == -signal.SIGTERM and (folder / "manifest.json").exists()
    if process.exitcode and not late:
        found.faults.append(f"{run}: exit {process.exitcode}: {attempts.said(run)[-2000:]}")
    return False


def _count(folder: Path, found: Survived) -> None:
    found.kills += 1
    kept = kept_checkpoints(folder)
    found.within_saves += len(list((folder / CHECKPOINTS).glob("checkpoint-*"))) > len(kept)
    found.replayed += _unsaved(folder)


def _unsaved(folder: Path) -> int:
    """Steps that have ended and are in no whole checkpoint."""
    reached = max((line["step"] for line in _log(folder / "log.jsonl")), default=0)
    return max(0, reached - max(map(step_of, kept_checkpoints(folder)), default=0))


def _log(path: Path) -> list[dict[str, int]]:
    """Whole lines of a log; the last may have been cut off by a kill."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]


def _compare(attempts: Attempts, run: str, found: Survived) -> None:
    folder = attempts.context.runs / run / attempts.stage
    found.adapters.append(attempts.adapter(run))
    links = chain(folder)
    if fault := loss(links) or disorder(links):
        found.faults.append(f"{run}: {fault}")
    if "Traceback" in attempts.said(run):
        found.faults.append(f"{run}: a traceback was printed: {attempts.said(run)}")
    if read_json(folder / "manifest.json")["measures"]["checkpoints"] != links:
        found.faults.append(f"{run}: the manifest names another chain")


def table(found: list[Survived]) -> str:
    """Markdown table, a line for each trainer."""
    lines = [
        "| trainer | kills survived | within a save | steps replayed | slowest end | runs | adapter as undisturbed |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        equal = f"{one.adapters.count(one.undisturbed)} of {len(one.adapters)} ({one.undisturbed[:12]})"
        figures = [one.kills, one.within_saves, one.replayed, f"{one.slowest_s:.1f} s", len(one.adapters)]
        lines.append(f"| {' | '.join(map(str, [one.stage, *figures, equal]))} |")
    return "\n".join([*lines, *(f"\n{fault}" for one in found for fault in one.faults)])


def _embedded(runs: Path, steps: int) -> Attempts:
    """The 135M student on a few short rows."""
    shared = {"max_steps": steps, "batch_size": 4, "max_length": 256, "save_minutes": 0.02, "evaluations": 1}
    context = make_context(runs, sft=shared, dpo=shared)
    finish_fetch(context, find_embedded_gguf())
    finish_generate(context, small_generate(rows=4 * steps))
    return Attempts(context, "sft", threads=len(os.sched_getaffinity(0)))


@click.command()
@click.option("--student", type=click.Choice(["embedded"]), default="embedded", show_default=True)
@click.option("--kills", default=20, show_default=True, help="Kills per trainer.")
@click.option("--steps", default=12, show_default=True, help="Optimizer steps of a run.")
@click.option("--seed", default=0, show_default=True, help="Another seed draws other moments.")
@click.option("--by", type=click.Choice(["kill", "terminate"]), default="kill", show_default=True, help="Signal.")
@click.option("--stage", "only", type=click.Choice(["sft", "dpo"]), help="One trainer alone.")
def main(student: str, kills: int, steps: int, seed: int, by: Signal, only: str | None) -> None:  # noqa: PLR0913
    """Kill both trainers and print what they survived."""
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker:UserWarning")  # killed processes clean up nothing
    found = []
    with tempfile.TemporaryDirectory(prefix="cai-kills-") as folder:
        sft = _embedded(Path(folder), steps)
        if only != "sft":
            _must_end(sft, sft.context.run)  # dpo continues its adapter
        for stage in [only] if only else ["sft", "dpo"]:
            found.append(survive(Attempts(sft.context, stage, sft.threads), kills, seed, by))
            print(f"{stage}: {found[-1].kills} kills, equal: {found[-1].equal}", flush=True)
    print(f"\n{machine()}, {student} student, {steps} steps, seed {seed}\n\n{table(found)}")
    raise SystemExit(0 if all(one.equal for one in found) else 1)


if __name__ == "__main__":
    main()
