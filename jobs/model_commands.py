"""The commands of `cai` that deal with trained models and their recipes; each imports its job only when it runs."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import click

from jobs.options import make_context, run_options, which_run


@click.group()
def recipe() -> None:
    """Turn other projects' training files into recipes."""


@recipe.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Recipe to write.  [default: the screen]")
def import_recipe(file: Path, out: Path | None) -> None:
    """Translate FILE, a YAML of TRL or the alignment-handbook, and name every key that is renamed or dead."""
    import_module("jobs.prepare.recipe_import").import_recipe(file, out)


@click.command("verify")
@click.argument("name", required=False, metavar="[RUN]")
@click.option("--stage", type=click.Choice(["sft", "dpo"]), default="dpo", show_default=True, help="What to replay.")
@which_run
def verify(name: str | None, stage: str, run: str | None, **options: Any) -> None:
    """Train the last steps of RUN again from its last checkpoint but one, and compare every hash."""
    import_module("jobs.train.verify").run(make_context(run=name or run, **options), stage)


@click.command("export")
@run_options
def export(**options: Any) -> None:
    """Merge the adapter into the base exactly, measure what the merge changed, and write a model folder."""
    import_module("jobs.train.export").run(make_context(**options))


@click.command("chat")
@click.argument("name", required=False, metavar="[RUN]")
@click.option(
    "--stage", type=click.Choice(["base", "sft", "dpo"]), default="dpo", show_default=True, help="Who speaks."
)
@click.option("--compare", is_flag=True, help="Show base, SFT and DPO side by side.")
@which_run
def chat(name: str | None, stage: str, compare: bool, run: str | None, **options: Any) -> None:
    """Talk to the model of RUN in the terminal, by its own --recipe; /reset, /system TEXT and /quit are understood."""
    import_module("jobs.train.chat").run(make_context(run=name or run, **options), stage, compare)


@click.command("model")
@click.option("--repo", help="Model repository on the Hub, OWNER/NAME.")
@click.option("--licence", required=True, help="Licence of the model, by the Hub's identifier, such as apache-2.0.")
@click.option("--private", is_flag=True, help="Make the repository private where it does not exist yet.")
@click.option("--dry-run", is_flag=True, help="Put everything together and show it; send nothing.")
@which_run
def publish_model(repo: str | None, licence: str, private: bool, dry_run: bool, **options: Any) -> None:
    """Push both adapters, the merged model if exported, and a model card with the run's numbers."""
    import_module("jobs.publish.model").publish_model(make_context(**options), repo, licence, dry_run, private)


@click.command("logs")
@which_run
def publish_logs(**options: Any) -> None:
    """Send the trackers' offline logs of the run (`tracker: trackio` or `wandb`)."""
    import_module("jobs.publish.logs").publish_logs(make_context(**options))


MODEL_COMMANDS: tuple[click.Command, ...] = (verify, export, chat, recipe)
"""In the order `cai --help` shows them."""
PUBLISH_COMMANDS: tuple[click.Command, ...] = (publish_model, publish_logs)
"""Under `cai publish`."""
