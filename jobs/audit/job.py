"""Measure a dataset and judge it: `cai audit`, as a stage of a run or over any sources.

Writes audit.html and measures.json, prints a strip of traffic lights, and exits with 65 where a gate is red.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jobs.audit.blocks import View, count_of
from jobs.audit.figures import VERSION, write_figures
from jobs.audit.lights import failed, failure_line, print_strip
from jobs.audit.page import write_page
from jobs.audit.remedy import import_and_repair, other_fix, repairable
from jobs.audit.several import read_sources, transfers
from jobs.common.console import say
from jobs.common.constitution import Constitution
from jobs.common.context import RunContext
from jobs.common.data_stage import data_folder, data_stage
from jobs.common.errors import ConfigError, DataError
from jobs.common.settings import AuditSettings
from jobs.common.stage import OpenStage, Result, StagePlan, open_stage
from jobs.measure.data import Data
from jobs.measure.gates import gates
from jobs.measure.measure import measure
from jobs.measure.measured import Gate
from jobs.measure.run_data import read_run

PAGE, FIGURES = "audit.html", "measures.json"


def run(context: RunContext) -> None:
    """Audit a run's rows: repair's where it ran, else generate's.

    Raises:
        DataError: a gate is red and `audit.on_failure` is `stop`; the files are written, the stage is not finished.
    """
    constitution, settings = context.constitution(), context.recipe.audit
    ingredients = {
        "audit": settings.model_dump(mode="json"),
        "constitution_sha256": constitution.sha256,
        "figures_version": VERSION,
    }
    plan = StagePlan("audit", ingredients, parents=(data_stage(context),), lock="cpu")
    with open_stage(context, plan) as stage:
        if stage is not None:
            data = read_run(data_folder(context), constitution)
            view = _typed(context, _measured(data, settings, context.recipe.seed))
            _write(stage.folder, view)
            if red := failed(view.gates):
                _stop_or_say(stage, red)
            stage.finish(_result(stage.folder, view))


def audit_sources(sources: list[str], out: Path, settings: AuditSettings, constitution: Constitution | None) -> None:
    """Audit anything: writes audit.html and measures.json into `out`.

    Args:
        sources: run and data-stage folders, .jsonl, .parquet and .json files or folders of them, `hub:owner/name`, the
            original authors' JSON; several count as one dataset.
        out: folder of the report; made where it is missing.
        settings: limits of the gates.
        constitution: whose principles the rows belong to, where known.

    Raises:
        ConfigError: a source does not exist, or `out` is a file.
        DataError: nothing can be read; or a gate is red or too many rows are unreadable, and the files are written.
        UnavailableError: the hub does not answer.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}: that is a file; the report needs a folder. Choose another name.")
    found = read_sources(sources, constitution)
    view = _measured(found.data, settings, seed=0)
    chain = import_and_repair(sources)
    fixed = [replace(gate, fix=chain if _is_import(gate) else gate.fix) for gate in view.gates]
    view = replace(view, gates=fixed, transfers=tuple(transfers(found.each, seed=0)), remarks=tuple(found.notes))
    _write(out, view)
    red, said = failed(view.gates), []
    if found.too_many_unread:
        said.append(found.unread_line)
    if red:
        said.append(f"{_named(red)}. Next: {chain if any(map(_is_import, red)) else other_fix(red)}")
    if said:
        raise DataError(f"{out / PAGE}: {'. '.join(said)}.")


def _measured(data: Data, settings: AuditSettings, seed: int) -> View:
    sizes = ((data.prompts, "prompt"), (data.examples, "supervised row"), (data.pairs, "pair"))
    prompts, examples, pairs = (count_of(len(rows), name) for rows, name in sizes)
    say(f"audit: measuring {prompts}, {examples} and {pairs}")
    measured = measure(data, seed=seed)
    return View(data, measured, gates(data, measured, settings), seed)


def _typed(context: RunContext, view: View) -> View:
    """The same view whose fixes are commands that work as they are typed, with the run's recipe and folder."""
    short, whole = f"cai repair --run {context.run}", context.command("repair")
    return replace(view, gates=[replace(gate, fix=gate.fix.replace(short, whole)) for gate in view.gates])


def _write(folder: Path, view: View) -> None:
    write_figures(folder / FIGURES, view)
    write_page(folder / PAGE, view)
    print_strip(view.data.name, view.gates, remarks=view.remarks)
    say(f"audit: {folder / PAGE}")


def _stop_or_say(stage: OpenStage, red: Sequence[Gate]) -> None:
    context = stage.context
    if context.recipe.audit.on_failure == "report":
        say(f"audit: {_named(red)}; the run goes on because audit.on_failure is report")
        return
    # Nothing is finished, so nothing is claimed: after a repair, or with other limits, the same command may run again.
    (stage.folder / "begun.json").unlink(missing_ok=True)
    todo = f"Run: {context.command('repair')}, then audit again" if repairable(red) else f"Next: {other_fix(red)}"
    raise DataError(
        f"{stage.folder / PAGE}: {_named(red)}. {todo}; to go on all the same, audit with --set audit.on_failure=report"
    )


def _named(red: Sequence[Gate]) -> str:
    return f"{len(red)} {'gate fails' if len(red) == 1 else 'gates fail'}: {', '.join(map(failure_line, red))}"


def _is_import(gate: Gate) -> bool:
    """Whether the gate asks for an import and a repair, in words that name neither source nor run."""
    return "cai import" in gate.fix and repairable([gate])


def _result(folder: Path, view: View) -> Result:
    data, measured = view.data, view.measured
    lights = [gate.light for gate in view.gates]
    return Result(
        [folder / PAGE, folder / FIGURES],
        counts={
            "prompts": len(data.prompts),
            "examples": len(data.examples),
            "pairs": len(data.pairs),
            "malformed": len(measured.malformed),
            "duplicates": len(measured.near),
            "leaks": len(measured.leaks),
        },
        measures={
            "gates": {
                gate.name: {"value": gate.value, "limit": gate.limit, "light": gate.light} for gate in view.gates
            },
            "red": lights.count("red"),
            "amber": lights.count("amber"),
        },
    )
