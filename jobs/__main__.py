"""`cai`, or `python -m jobs`: one command per stage; a command imports its job only when it runs."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import click

from jobs.common.console import say
from jobs.common.errors import EXIT_INTERRUPTED, EXIT_USAGE, ConfigError, JobError, StoppedError

STAGES = {
    "doctor": ("jobs.prepare.doctor", "Check driver, disk, keys and permissions before anything is paid."),
    "fetch": ("jobs.prepare.fetch", "Bring weights and mix-in datasets into RUNS/models."),
    "generate": ("jobs.generate.job", "Write red-team prompts, critiques, revisions and preference pairs."),
    "sft": ("jobs.train.sft", "Train the SFT adapter on the revisions."),
    "dpo": ("jobs.train.dpo", "Continue the SFT adapter on the preference pairs."),
    "respond": ("jobs.train.respond", "Answer the held-out prompts with base, SFT and DPO."),
}
"""Command → (module with `run(context)`, help line), in the order of a run."""


class _InOrder(click.Group):
    """Lists commands in the order of a run instead of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names as they were added, stages first."""
        return [*STAGES, *(name for name in self.commands if name not in STAGES)]


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def cai() -> None:
    """Constitutional AI as batch jobs. Stages run in this order; each says when it already finished."""


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options every stage takes; each can also come from the environment."""
    options = [
        click.option(
            "--recipe", envvar="CAI_RECIPE", default="demo", show_default=True, help="Name in recipes/, or a path."
        ),
        click.option("--run", envvar="CAI_RUN", default=None, help="Name of the run.  [default: the recipe's name]"),
        click.option("--runs", envvar="CAI_RUNS", default="runs", show_default=True, help="Folder of all state."),
        click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a recipe key; also CAI_SET."),
        click.option("--redo", is_flag=True, help="Move this stage's earlier output aside and start anew."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _add_stage(name: str, module: str, help_line: str) -> None:
    @cai.command(name, help=help_line, short_help=help_line)
    @run_options
    def stage(**options: Any) -> None:
        context = make_context(**options)
        import_module(module).run(context)


@cai.command("generate", help=STAGES["generate"][1], short_help=STAGES["generate"][1])
@run_options
@click.option("--until", type=click.Choice(["prompts"]), help="End when the red-team prompts are frozen.")
@click.option("--verbose", is_flag=True, help="Print a line for every item that fails, as it happens.")
def generate(until: str | None, verbose: bool, **options: Any) -> None:
    """The whole stage, or its first part alone, which a student on the GPU answers before the rest goes on."""
    job, context = import_module(STAGES["generate"][0]), replace(make_context(**options), verbose=verbose)
    (job.run_prompts if until else job.run)(context)


@cai.command("respond", help=STAGES["respond"][1], short_help=STAGES["respond"][1])
@run_options
@click.option(
    "--system",
    type=click.Choice(["base"]),
    help="Answer the red-team prompts instead, with the untrained student, for `initial.endpoint: file`.",
)
def respond(system: str | None, **options: Any) -> None:
    """Two jobs: one that closes a run, and one that comes before generate can ask for critiques."""
    context = make_context(**options)
    import_module("jobs.train.initial" if system else STAGES["respond"][0]).run(context)


def make_context(recipe: str, run: str | None, runs: str, sets: tuple[str, ...], redo: bool) -> Any:
    """Read the recipe and put what the command line says into one object."""
    from jobs.common.context import RunContext
    from jobs.common.recipe import load_recipe

    changes = [*os.environ.get("CAI_SET", "").split(), *sets]
    name = run or Path(recipe).name.removesuffix(".yaml").removesuffix(".yml")  # not stem: smollm2-1.7b
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or name.startswith("."):
        raise ConfigError(f"--run {name!r}: use letters, digits, '-', '_' and '.'.")
    if name in {"models", "journal"}:
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


@cai.group()
def constitution() -> None:
    """Check a constitution, or have its missing requests drafted."""


@constitution.command("check")
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Check FILE: ids, texts, sources and requests. Errors name file, line, field and value."""
    from jobs.prepare.constitution_check import check_constitution

    check_constitution(file)


@constitution.command("draft")
@click.argument("file", type=click.Path(path_type=Path))
@run_options
def draft(file: Path, **options: Any) -> None:
    """Fill in FILE's missing critique and revision requests through the recipe's teacher."""
    import_module("jobs.generate.draft").draft(file, make_context(**options))


@cai.command("import")
@click.option("--red-team", type=click.Path(path_type=Path), required=True, help="JSON of red-team prompts.")
@click.option("--sft", type=click.Path(path_type=Path), required=True, help="JSON of critiques and revisions.")
@click.option("--preferences", type=click.Path(path_type=Path), required=True, help="JSON of preference pairs.")
@run_options
def import_(red_team: Path, sft: Path, preferences: Path, **options: Any) -> None:
    """Import data in the original authors' three JSON shapes as a finished generate stage."""
    from jobs.prepare.importer import Sources, import_data

    import_data(make_context(**options), Sources(red_team=red_team, sft=sft, preferences=preferences))


@cai.command("plan")
@run_options
def plan(**options: Any) -> None:
    """Tell what generate will ask, use, cost and take, before a cent is spent. Sends nothing."""
    import_module("jobs.generate.plan").run_plan(make_context(redo=False, **options))


plan.params = [option for option in plan.params if option.name != "redo"]


@cai.command("status")
@click.argument("run", envvar="CAI_RUN", required=False)
@click.option("--runs", envvar="CAI_RUNS", default="runs", show_default=True, type=click.Path(path_type=Path))
def status(run: str | None, runs: Path) -> None:
    """Tell how far RUN is, or every run: finished, running, stopped, and how to go on. Changes nothing."""
    import_module("jobs.prepare.status").show_status(runs, run)


for _name, (_module, _help) in STAGES.items():
    if _name not in cai.commands:
        _add_stage(_name, _module, _help)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise StoppedError(
        "Stopped by SIGTERM before anything was left to save. Run the same command to go on, without --redo."
    )


def _as_job_error(error: OSError) -> JobError | None:
    """Disk trouble is the user's to fix; any other OSError is a bug."""
    where = error.filename or "the run folder"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StoppedError(
            f"Disk full while writing {where}. Free some space, then run the same command to go on, without --redo."
        )
    if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}:
        return ConfigError(f"Cannot write {where}: {error.strerror}. Choose a writable folder with --runs or CAI_RUNS.")
    return None


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code (see jobs/common/errors.py)."""
    handler_before = signal.signal(signal.SIGTERM, _stop)
    try:
        cai.main(arguments, prog_name="cai", standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return EXIT_USAGE
    except (KeyboardInterrupt, click.Abort):
        say("Stopped by Ctrl-C. Run the same command to go on, without --redo.")
        return EXIT_INTERRUPTED
    except JobError as error:
        say(f"Error: {error}")
        return error.exit_code
    except OSError as error:
        job_error = _as_job_error(error)
        if job_error is None:
            raise
        say(f"Error: {job_error}")
        return job_error.exit_code
    finally:
        signal.signal(signal.SIGTERM, handler_before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
