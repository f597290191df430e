"""The options every stage takes, and what they say as one object."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from jobs.common.errors import ConfigError


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options every stage takes."""
    redo = click.option("--redo", is_flag=True, help="Move this stage's earlier output aside and start anew.")
    return which_run(redo(command))


def which_run(command: Callable[..., None]) -> Callable[..., None]:
    """The options that name a run, for commands that do nothing anew; each can also come from the environment."""
    options = [
        click.option(
            "--recipe", envvar="CAI_RECIPE", default="demo", show_default=True, help="Name in recipes/, or a path."
        ),
        click.option("--run", envvar="CAI_RUN", default=None, help="Name of the run.  [default: the recipe's name]"),
        click.option("--runs", envvar="CAI_RUNS", default="runs", show_default=True, help="Folder of all state."),
        click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a recipe key; also CAI_SET."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def make_context(recipe: str, run: str | None, runs: str, sets: tuple[str, ...], redo: bool = False) -> Any:
    """Read the recipe and put what the command line says into one object."""
    from jobs.common.context import RunContext
    from jobs.common.recipe import load_recipe

    changes = [*os.environ.get("CAI_SET", "").split(), *sets]
    name = run or Path(recipe).name.removesuffix(".yaml").removesuffix(".yml")  # not stem: smollm2-1.7b
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or name.startswith("."):
        raise ConfigError(f"--run {name!r}: use letters, digits, '-', '_' and '.'.")
    if name in {"models", "journal", "reference"}:
        raise ConfigError(f"--run {name!r}: that name is taken by the folder {runs}/{name}. Choose another.")
    given = _given({"--recipe": (recipe, "CAI_RECIPE", "demo"), "--runs": (runs, "CAI_RUNS", "runs")}, sets)
    return RunContext(recipe=load_recipe(recipe, changes), run=name, runs=Path(runs), redo=redo, given=given)


def _given(options: dict[str, tuple[str, str, str]], sets: tuple[str, ...]) -> str:
    """What must be typed again for the same run: (value, variable, default) of each option, and each --set."""
    typed = [
        part
        for option, (value, variable, default) in options.items()
        if value != (os.environ.get(variable) or default)
        for part in (option, value)
    ]
    return shlex.join([*typed, *(part for change in sets for part in ("--set", change))])
