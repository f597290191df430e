"""What to run where a gate is red: repair only where repair can help, and commands that work as they are typed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from jobs.audit.original_data import files_by_shape
from jobs.audit.sources import HUB
from jobs.common.table_files import is_original
from jobs.measure.measured import Gate

NOT_REPAIRABLE = {"coverage", "splits"}
"""Gates about rows that are not there, or stand in the wrong file: asking rows again mends neither."""


def repairable(gates: Sequence[Gate]) -> bool:
    """Whether `cai repair` can turn one of these gates green."""
    return any(gate.name not in NOT_REPAIRABLE for gate in gates)


def other_fix(gates: Sequence[Gate]) -> str:
    """What the first of these gates says to do."""
    return next((gate.fix.rstrip(".") for gate in gates if gate.fix), "the gates in the page say how")


def import_and_repair(sources: Sequence[str]) -> str:
    """The commands that make these sources a run whose rows are asked again."""
    steps: list[str] = []
    given: list[str] = []
    for source in sources:
        if source.startswith(HUB):
            repository = re.split("[@:]", source.removeprefix(HUB))[0]
            folder = repository.split("/")[-1]
            steps.append(f"hf download --repo-type dataset {repository} --local-dir {folder}")
            given.append(folder)
        elif _original(Path(source)):
            files = files_by_shape(Path(source))
            options = {"--red-team": "red_team", "--sft": "sft", "--preferences": "pairs"}
            given += [f"{name} {shlex.quote(str(files.get(shape, 'FILE')))}" for name, shape in options.items()]
        else:
            given.append(shlex.quote(source))
    chosen = f"--run {_run_name(sources[0])} --recipe RECIPE"
    steps += [f"cai import {' '.join(given)} {chosen}", f"cai repair {chosen}"]
    return " && ".join(steps)


def _run_name(source: str) -> str:
    name = Path(re.split("[@:]", source.removeprefix(HUB))[0] if source.startswith(HUB) else source).resolve().name
    run = re.sub(r"[^A-Za-z0-9_-]+", "-", name.split(".")[0]).strip("-") or "mine"
    return f"{run}-run" if run in {"models", "journal"} else run


def _original(path: Path) -> bool:
    return is_original(path) or (path.is_dir() and any(is_original(file) for file in path.glob("*.json")))
