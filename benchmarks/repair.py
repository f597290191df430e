"""What repair does to the data of scripted teachers with known habits.

    python -m benchmarks.repair [HABIT ...]

Prints a Markdown table, every habit's gates before → after against repair's targets. No network, no key; 20 s a habit.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from benchmarks.table import machine
from jobs.generate.repair_found import targets
from tests.fakes.scripted_run import scripted_run
from tests.fakes.teachers import HABITS, Habit

SHOWN = ("length_only", "prompt_blind", "refusal_only", "opening", "malformed", "duplicates", "leaks", "coverage")
REPEATED = 12
"""Every so many-th prompt of the duplicating teacher's run is made a near-copy: generate lets none through."""


def main(habits: list[str]) -> None:
    """Run every habit, or those named, and print the table."""
    print(f"{machine()}\n")
    print(f"| teacher | {' | '.join(SHOWN)} | pairs | given up | requests | s |")
    print(f"|---|{'---|' * (len(SHOWN) + 4)}")
    for habit in HABITS:
        if not habits or habit in habits:
            print(_line(habit), flush=True)


def _line(habit: Habit) -> str:
    with tempfile.TemporaryDirectory() as folder, scripted_run(Path(folder), habit) as run:
        _must_be_done(run.cai("generate"))
        if habit == "duplicating":
            run.repeat_prompts(every=REPEATED)
        aims = targets(run.context.recipe.audit)
        before, asked, began = run.gates("generate", aims), len(run.server.history), time.monotonic()
        _must_be_done(run.cai("repair"))
        took_s, after = time.monotonic() - began, run.gates("repair", aims)
        cells = [f"{_figure(before[name].value)} → {_figure(after[name].value)}" for name in SHOWN]
        given_up = run.manifest("repair")["counts"]["given_up"]
        pairs = f"{run.pairs('generate')} → {run.pairs('repair')}"
        requests = len(run.server.history) - asked
        return f"| {habit} | {' | '.join(cells)} | {pairs} | {given_up} | {requests} | {took_s:.1f} |"


def _must_be_done(code: int) -> None:
    if code:
        raise SystemExit(code)


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value == int(value) else f"{value:.3f}"


if __name__ == "__main__":
    main(sys.argv[1:])
