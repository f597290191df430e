"""The commands of `cai` that are no stage; each imports its job only when it runs."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click

from jobs.model_commands import MODEL_COMMANDS, PUBLISH_COMMANDS
from jobs.options import make_context, run_options, which_run


@click.group()
def constitution() -> None:
    """Check a constitution, or have its missing requests drafted."""


@constitution.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--teacher", is_flag=True, help="Ask the recipe's teacher about every principle too.")
@run_options
def check(file: Path, teacher: bool, **options: Any) -> None:
    """Check FILE, or a shipped constitution by its name: ids, texts, sources and requests, with line and value."""
    from jobs.prepare.constitution_check import check_constitution, find_constitution

    file = find_constitution(file)
    check_constitution(file, remarks=not teacher)
    if teacher:
        import_module("jobs.generate.lint").lint(file, make_context(**options))


@constitution.command("draft")
@click.argument("file", type=click.Path(path_type=Path))
@run_options
def draft(file: Path, **options: Any) -> None:
    """Fill in FILE's missing critique and revision requests through the recipe's teacher."""
    import_module("jobs.generate.draft").draft(file, make_context(**options))


@click.command("import")
@click.argument("sources", nargs=-1, metavar="[SOURCE]...", type=click.Path(path_type=Path))
@click.option("--red-team", type=click.Path(path_type=Path), help="The original's JSON of red-team prompts.")
@click.option("--sft", type=click.Path(path_type=Path), help="The original's JSON of critiques and revisions.")
@click.option("--preferences", type=click.Path(path_type=Path), help="The original's JSON of preference pairs.")
@run_options
def import_(
    sources: tuple[Path, ...], red_team: Path | None, sft: Path | None, preferences: Path | None, **options: Any
) -> None:
    """Import other people's data as a finished generate stage.

    SOURCE is a JSONL or parquet file, or a folder of them (alignment-handbook, TRL, prompt with chosen and
    rejected, prompt with completion); the three options together read the first South African experiment.
    """
    from jobs.prepare.importer import Sources, import_data

    import_data(make_context(**options), Sources(red_team=red_team, sft=sft, preferences=preferences, others=sources))


@click.command("repair")
@click.argument("name", required=False, metavar="[RUN]")
@run_options
def repair(name: str | None, run: str | None, **options: Any) -> None:
    """Ask again for the rows of RUN that break a gate of the data report; what stays broken is given up by name."""
    import_module("jobs.generate.repair").run(make_context(run=name or run, **options))


@click.command("plan")
@click.option(
    "--gpu-price", multiple=True, metavar="NAME=USD", help="What an hour of a GPU type costs you; as often as needed."
)
@which_run
def plan(gpu_price: tuple[str, ...], **options: Any) -> None:
    """Tell what generate will ask, use, cost and take, and what training takes on every GPU type. Sends nothing."""
    gpus, context = import_module("jobs.common.gpus").priced(gpu_price), make_context(**options)
    import_module("jobs.generate.plan").run_plan(context)
    print()
    import_module("jobs.prepare.train_plan").run_plan(context, gpus)


@click.command("status")
@click.argument("run", envvar="CAI_RUN", required=False)
@click.option("--runs", envvar="CAI_RUNS", default="runs", show_default=True, type=click.Path(path_type=Path))
def status(run: str | None, runs: Path) -> None:
    """Tell how far RUN is, or every run: finished, running, stopped, and how to go on. Changes nothing."""
    import_module("jobs.prepare.status").show_status(runs, run)


@click.group()
def publish() -> None:
    """Put what a run made on the Hub."""


@publish.command("data")
@click.option("--repo", help="Dataset repository on the Hub, OWNER/NAME.")
@click.option("--licence", required=True, help="Licence of the data, by the Hub's identifier, such as cc-by-4.0.")
@click.option("--private", is_flag=True, help="Make the repository private where it does not exist yet.")
@click.option("--dry-run", is_flag=True, help="Put everything together and show it; send nothing.")
@which_run
def data(repo: str | None, licence: str, private: bool, dry_run: bool, **options: Any) -> None:
    """Write parquet files and a dataset card with the run's numbers, and push them where a token is there."""
    import_module("jobs.publish.data").publish_data(make_context(**options), repo, licence, dry_run, private)


for _command in PUBLISH_COMMANDS:
    publish.add_command(_command)

COMMANDS: tuple[click.Command, ...] = (repair, constitution, import_, plan, status, *MODEL_COMMANDS, publish)
"""In the order `cai --help` shows them, after the stages."""
