"""The logs of trackio and W&B, written on this machine alone; `cai publish logs` sends them.

Neither takes back a step, so every process begins its log anew and fills it from log.jsonl up to where it goes on.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.train.history import step_figures
from jobs.train.logged import before, read_log

PROJECT = "cai"
"""Project of W&B runs."""


@dataclass(frozen=True)
class Place:
    """Whose figures, and where they go."""

    folder: Path
    """The stage's folder, with log.jsonl in it."""
    run: str
    stage: str
    config: Mapping[str, Any]
    """Settings shown beside the curves, as JSON values."""


@dataclass
class Wandb:
    """W&B's offline log."""

    place: Place
    wandb: Any
    _run: Any = None
    _settings: Any = field(init=False)

    def __post_init__(self) -> None:
        """Settings that keep paths, host name and screen of this machine out of what is sent later."""
        self._settings = self.wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, x_disable_meta=True,
            x_disable_stats=True, x_save_requirements=False,
        )  # fmt: skip

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """See Tracker."""
        if self._run is None:
            shutil.rmtree(self.place.folder / "wandb", ignore_errors=True)
            self._run = self.wandb.init(
                project=PROJECT,
                name=f"{self.place.run} {self.place.stage}",
                group=self.place.run,
                job_type=self.place.stage,
                config=dict(self.place.config),
                dir=str(self.place.folder),
                mode="offline",
                settings=self._settings,
            )
            _replay(self._run, self.place, step, figures)
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        """See Tracker."""
        if self._run is not None:
            self._run.finish()


@dataclass
class Trackio:
    """Trackio's local database.

    Every stage is a project of its own, since sending a project replaces what the Space has of it.
    """

    place: Place
    trackio: Any
    _run: Any = None

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """See Tracker."""
        if self._run is None:
            shutil.rmtree(self.place.folder / "trackio", ignore_errors=True)
            with contextlib.redirect_stdout(sys.stderr):
                self._run = self.trackio.init(
                    project=f"{self.place.run}-{self.place.stage}",
                    name=self.place.stage,
                    config=dict(self.place.config),
                    embed=False,
                    auto_log_gpu=False,
                    auto_log_cpu=False,
                )
            _replay(self._run, self.place, step, figures)
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        """See Tracker."""
        if self._run is not None:
            with contextlib.redirect_stdout(sys.stderr):
                self.trackio.finish()  # the run's own would be called again when Python ends


def _replay(run: Any, place: Place, step: int, figures: Mapping[str, float]) -> None:
    for line in before(read_log(place.folder / "log.jsonl"), step, figures):
        run.log(step_figures(line), step=line["step"])
