"""How far a run is, read from another terminal: `cai status [RUN]`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from jobs.common.context import COMMANDS
from jobs.common.errors import ConfigError, DataError
from jobs.common.live import duration, usd
from jobs.prepare.run_state import Begun, Holder, Manifest, Progress, holder, read_document

STAGES = ("fetch", "generate", "initial", "repair", "audit", "sft", "dpo", "respond", "export")
"""Stages that have a folder, in the order of a run."""
NOT_ALWAYS = {"initial", "repair", "audit", "export"}
"""Stages that not every run has, shown once they are begun."""
NOT_RUNS = {"models", "journal", "reference"}
OLD_NEWS_S = 15.0
"""Age of progress.json from which it is told, in seconds."""


@dataclass(frozen=True)
class StageStatus:
    """Where one stage of a run stands."""

    stage: str
    state: str
    """`finished`, `running`, `stopped`, `damaged` or `not begun`."""
    detail: str = ""
    at: str = ""
    """How far, in a few words: `chains 120/400`."""
    go_on: str = ""
    """The command that goes on, for `stopped` and `damaged`."""


def show_status(runs: Path, run: str | None) -> None:
    """Print where every stage of a run stands, or one line for every run of the folder.

    Raises:
        ConfigError: no such folder or run; names the runs there are.
    """
    if not runs.is_dir():
        raise ConfigError(f"No folder {runs} yet. Begin with: cai fetch; or choose another with --runs or CAI_RUNS.")
    known = sorted(path.name for path in runs.iterdir() if path.name not in NOT_RUNS and _is_run(path))
    if run is None:
        width = max(map(len, known), default=0)
        lines = [f"{name:<{width}}  {_summary(run_status(runs, name))}" for name in known]
        click.echo("\n".join(lines) or f"No runs in {runs} yet. Begin with: cai fetch")
    elif run in known:
        click.echo("\n".join([f"{run} ({runs / run})", *_lines(run_status(runs, run))]))
    else:
        there = f"There are: {', '.join(known)}." if known else "There are none yet. Begin with: cai fetch"
        raise ConfigError(f"No run {run!r} in {runs}. {there}")


def run_status(runs: Path, run: str) -> list[StageStatus]:
    """Where each stage of a run stands, in the order of a run."""
    held_by = holder(runs / run)  # first: a stage that ends after this line shows as finished
    found = [_stage_status(runs, run, stage, held_by) for stage in STAGES]
    return [one for one in found if one.stage not in NOT_ALWAYS or one.state != "not begun"]


def _is_run(folder: Path) -> bool:
    return (folder / ".lock").is_file() or any((folder / stage).is_dir() for stage in STAGES)


def _stage_status(runs: Path, run: str, stage: str, held_by: Holder | None) -> StageStatus:
    folder = runs / run / stage
    try:
        manifest = read_document(folder / "manifest.json", Manifest)
    except DataError as error:
        return StageStatus(stage, "damaged", str(error), go_on=_command(runs, run, stage, " --redo"))
    if manifest:
        return StageStatus(stage, "finished", _finished(manifest))
    progress, damage = None, ""
    try:
        progress = read_document(folder / "progress.json", Progress)
    except DataError as error:
        damage = str(error)
    at = progress.at if progress else ""
    if held_by and held_by.stage == stage:
        detail = f"{damage or _running(progress, held_by)} · process {held_by.pid} on {held_by.host}"
        return StageStatus(stage, "running", detail, at)
    if not (progress or damage or (folder / "begun.json").exists()):
        return StageStatus(stage, "not begun")
    detail = f"at {at}, {duration(_age_s(progress))} ago" if progress else damage or "before its first step"
    return StageStatus(stage, "stopped", detail, at, _command(runs, run, stage))


def _command(runs: Path, run: str, stage: str, more: str = "") -> str:
    try:
        begun = read_document(runs / run / stage / "begun.json", Begun)
    except DataError:
        begun = None
    if begun and begun.command:
        return begun.command + more
    given = "" if str(runs) == "runs" else f" --runs {runs}"
    return f"cai {COMMANDS.get(stage, stage)} --run {run}{given}{more}, with the --recipe and --set it began with"


def _finished(manifest: Manifest) -> str:
    tokens = manifest.tokens
    shown = {name: count for name, count in tokens.items() if not name.startswith(("new_", "journalled_"))}
    parts = [
        f"{manifest.finished:%Y-%m-%d %H:%M} UTC after {duration(manifest.wall_s)}",
        ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in manifest.counts.items()),
        f"{sum(manifest.dropped.values())} dropped" if manifest.dropped else "",
        "tokens: " + ", ".join(f"{count} {_short(name)}" for name, count in shown.items()) if shown else "",
        "cost unknown" if "prompt_tokens" in tokens and manifest.cost_usd is None else "",
        usd(manifest.cost_usd) if manifest.cost_usd is not None else "",
    ]
    return " · ".join(filter(None, parts))


def _short(name: str) -> str:
    return {"prompt_tokens": "in", "reply_tokens": "out"}.get(name, name.replace("_", " "))


def _running(progress: Progress | None, held_by: Holder) -> str:
    if progress is None or (progress.pid, progress.host) != (held_by.pid, held_by.host):  # an earlier process's
        return f"began {duration(max(0.0, (datetime.now(UTC) - held_by.since).total_seconds()))} ago"
    age_s = _age_s(progress)
    parts = [
        progress.at,
        progress.figures,
        progress.live.line() if progress.live else "",
        f"ETA {duration(progress.eta_s)}" if progress.eta_s else "",
        f"no news for {duration(age_s)}" if age_s > OLD_NEWS_S else "",
    ]
    return " · ".join(filter(None, parts))


def _age_s(progress: Progress) -> float:
    return max(0.0, time.time() - progress.updated)


def _lines(found: list[StageStatus]) -> list[str]:
    lines = []
    for one in found:
        lines.append(f"  {one.stage:<9} {one.state:<9}  {one.detail}".rstrip())
        if one.go_on:
            lines.append(f"  {'':<9} {'':<9}  go on with: {one.go_on}")
    return lines


def _summary(found: list[StageStatus]) -> str:
    for state in ("running", "damaged", "stopped"):
        for one in found:
            if one.state == state:
                return f"{one.stage} {state}" + (f" at {one.at}" if one.at else "")
    finished = [one.stage for one in found if one.state == "finished"]
    waiting = [one.stage for one in found if one.state == "not begun"]
    return f"{', '.join(finished) or 'nothing'} finished" + (f", next is {waiting[0]}" if waiting else "")
