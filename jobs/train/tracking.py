"""Where training figures go besides log.jsonl: the recipe's `tracker`. Nothing leaves the machine.

tensorboard   runs/<run>/<stage>/tensorboard/, read while it grows: tensorboard --logdir runs/<run>
trackio       runs/<run>/<stage>/trackio/ } the tracker's own offline log; `cai publish logs` sends it, on a machine
wandb         runs/<run>/<stage>/wandb/   } with network

A resumed stage goes on with the same curves: what an earlier process logged beyond its checkpoint is taken back.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from jobs.common.errors import ConfigError
from jobs.train.logged import HELD_OUT
from jobs.train.offline_trackers import Place, Trackio, Wandb

PACKAGES = {"tensorboard": "tensorboardX", "trackio": "trackio", "wandb": "wandb"}
"""What `pip install` calls each tracker's writer."""


class Tracker(Protocol):
    """Takes figures of training steps."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Take the figures of an optimizer step, or held-out ones (`held_out/...`) after it; steps never fall."""

    def close(self) -> None:
        """Write what is left; nothing can be logged afterwards."""


def open_tracker(kind: str, folder: Path, run: str, stage: str, config: Mapping[str, Any]) -> Tracker:
    """The tracker of a stage; called before training begins, so that what is missing is said before it costs time.

    Args:
        kind: the recipe's `tracker`.
        folder: the stage's folder.
        run: name of the run.
        stage: `sft` or `dpo`.
        config: settings to show beside the curves.

    Raises:
        ConfigError: the tracker's package is not installed.
    """
    place = Place(folder, run, stage, config)
    if kind == "trackio":
        return Trackio(place, _trackio(folder))
    if kind == "wandb":
        os.environ["WANDB_ERROR_REPORTING"] = "false"  # read at import; it would send tracebacks to W&B
        return Wandb(place, _package(kind))
    _package(kind)
    return TensorBoard(place)


@dataclass
class TensorBoard:
    """Event files, written at once and in this thread: a queue would lose steps at a kill and hang on a full disk."""

    place: Place
    _writer: Any = None

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """See Tracker."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        if self._writer is None:
            self._begin(step, figures)
        values = [Summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
        self._write(Event(step=step, summary=Summary(value=values)))
        self._writer.flush()

    def close(self) -> None:
        """See Tracker."""
        if self._writer is not None:
            self._writer.close()

    def _begin(self, step: int, figures: Mapping[str, float]) -> None:
        """Open a file that sorts after the earlier ones, whatever the clocks say, and take back what comes again."""
        from tensorboardX import RecordWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import text

        folder = self.place.folder / "tensorboard"
        folder.mkdir(parents=True, exist_ok=True)
        earlier = [int(path.name.split(".")[3]) for path in folder.glob("events.out.tfevents.*")]
        number = max([int(time.time()), *(one + 1 for one in earlier)])
        self._writer = RecordWriter(str(folder / f"events.out.tfevents.{number:010d}.cai"))
        self._write(Event(file_version="brain.Event:2"))
        if earlier:  # TensorBoard drops what earlier files hold from this step on
            again = step + any(name.startswith(HELD_OUT) for name in figures)
            self._write(Event(step=again, session_log=SessionLog(status=SessionLog.START)))
        else:
            shown = json.dumps(self.place.config, ensure_ascii=False, indent=2)
            self._write(Event(step=0, summary=text("settings", f"```json\n{shown}\n```")))

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._writer.write(event.SerializeToString())


def _trackio(folder: Path) -> Any:
    """The package, which reads its folder once, at import, and would send to a Space named in the environment."""
    os.environ["TRACKIO_DIR"] = str(folder / "trackio")
    for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_WEBHOOK_URL"):
        os.environ.pop(name, None)
    return _package("trackio")


def _package(kind: str) -> Any:
    package = PACKAGES[kind]
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ConfigError(
            f"tracker: found {kind!r}, but {package} is not installed here. Run: pip install {package}; "
            f"or train with --set tracker=tensorboard."
        ) from error
