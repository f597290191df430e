"""What the command line says: which recipe, which run, where state lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jobs.common.constitution import Constitution, load_constitution
from jobs.common.settings import Recipe

COMMANDS = {"initial": "respond --system base"}
"""Stages that are not a command of their own."""


@dataclass(frozen=True)
class RunContext:
    """One command's view of one run."""

    recipe: Recipe
    run: str
    runs: Path
    redo: bool = False
    verbose: bool = False
    """Say every item that fails, as it happens."""
    given: str = ""
    """Options beside `--run` that the same recipe and folder need again, as they are typed; for messages."""

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self.runs / self.run

    @property
    def models(self) -> Path:
        """Where fetch puts weights; shared by all runs."""
        return self.runs / "models"

    @property
    def journal(self) -> Path:
        """Folder of the journal of paid replies; shared by all runs."""
        return self.runs / "journal"

    @property
    def typed(self) -> str:
        """What is typed after `--run` for the same run, recipe and folder; for messages."""
        return " ".join(filter(None, [self.run, self.given]))

    def constitution(self) -> Constitution:
        """The recipe's constitution, read and checked."""
        return load_constitution(self.recipe.constitution)

    def command(self, stage: str, *more: str) -> str:
        """The command line that runs a stage of this run with this recipe."""
        return " ".join(["cai", COMMANDS.get(stage, stage), "--run", self.typed, *more])
