"""`cai`, or `python -m jobs`: one command per stage; a command imports its job only when it runs."""

from __future__ import annotations

import errno
import signal
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any

import click

from jobs.commands import COMMANDS
from jobs.common.console import say
from jobs.common.errors import EXIT_INTERRUPTED, EXIT_USAGE, ConfigError, JobError, StoppedError
from jobs.options import make_context, run_options

STAGES = {
    "doctor": ("jobs.prepare.doctor", "Check driver, disk, keys and permissions before anything is paid."),
    "fetch": ("jobs.prepare.fetch", "Bring weights and mix-in datasets into RUNS/models."),
    "generate": ("jobs.generate.job", "Write red-team prompts, critiques, revisions and preference pairs."),
    "audit": ("jobs.audit.job", "Measure the data and say whether it teaches the constitution or a style."),
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


@cai.command("audit", short_help=STAGES["audit"][1])
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the report on SOURCE.  [default: audit]")
@click.option("--constitution", help="Constitution that SOURCE was made for: its principles are looked for.")
@run_options
def audit(sources: tuple[str, ...], out: Path | None, constitution: str | None, **options: Any) -> None:
    """Measure the data and say whether it teaches the constitution or a style; 65 where a gate fails.

    Without SOURCE the stage of the run. SOURCE is a run's folder, a parquet or JSONL file or a folder of them, the
    original authors' JSON, or hub:OWNER/NAME[@REVISION][:SPLIT].
    """
    from jobs.common.constitution import load_constitution

    job, context = import_module(STAGES["audit"][0]), make_context(**options)
    if sources:
        job.audit_sources(
            list(sources),
            out or Path("audit"),
            context.recipe.audit,
            load_constitution(constitution) if constitution else None,
        )
    else:
        job.run(context)


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


for _name, (_module, _help) in STAGES.items():
    if _name not in cai.commands:
        _add_stage(_name, _module, _help)
for _command in COMMANDS:
    cai.add_command(_command)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise StoppedError(
        "Stopped by SIGTERM before anything was left to save. Run the same command to go on, without --redo."
    )


def _as_job_error(error: OSError) -> JobError | None:
    """Disk trouble is the user's to fix; any other OSError is a bug."""
    where = error.filename or "the run folder"
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
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
