"""A stage's command in a process that kills itself with SIGKILL at a chosen moment of a chosen write."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any


def run_until(command: list[str], log: Path, write: str) -> None:
    """Run `python -m jobs COMMAND` until it writes `write`, and die there; what it says goes to `log`.

    A file that appears whole dies with half of it under its temporary name; `log.jsonl` and `tensorboard` grow, and die
    with half of their third line or record.
    """
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import torch

    from jobs.__main__ import main

    torch.set_num_threads(1)
    if write in GROWING:
        GROWING[write]()
    else:
        _die_before_the_rename(write)
    raise SystemExit(main(command))


def _die_before_the_rename(name: str) -> None:
    replace = Path.replace

    def call(self: Path, target: Any) -> Path:
        if f"/{target}".endswith(f"/{name}"):
            for path in [self] if self.is_file() else sorted(self.iterdir())[1:]:
                os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, target)

    Path.replace = call  # type: ignore[method-assign, assignment]


def _die_in_the_third(kind: type, method: str, path_of: Callable[[Any], Path]) -> None:
    original, seen = getattr(kind, method), []

    def call(self: Any, *given: Any) -> None:
        original(self, *given)
        seen.append(given)
        if len(seen) == 3:
            path = path_of(self)
            os.truncate(path, path.stat().st_size - 10)
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(kind, method, call)


def _log() -> None:
    from jobs.train.watch import Watch

    _die_in_the_third(Watch, "_write", lambda watch: watch.log)


def _tensorboard() -> None:
    from jobs.train.tracking import TensorBoard

    _die_in_the_third(TensorBoard, "log", lambda board: next((board.place.folder / "tensorboard").iterdir()))


GROWING: dict[str, Callable[[], None]] = {"log.jsonl": _log, "tensorboard": _tensorboard}
