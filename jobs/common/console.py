"""What people see while a stage runs: one line per fact, and progress as a bar or as plain lines.

Everything goes to stderr; stdout is for results. progress.json says the same to programs and to `cai status`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from jobs.common.live import Eta, Live, Training, duration

console = Console(stderr=True, soft_wrap=True, highlight=False)

BAR_S = 0.2
"""Least time between two drawings of the bar."""
WRITE_S = 1.0
"""Least time between two writings of progress.json."""
PLAIN_S = 10.0
"""Least time between two plain progress lines."""
STILL_S = 60.0
"""Least time between two plain progress lines that say the same."""

State = Literal["running", "stopped"]


def say(line: str) -> None:
    """Print one line for people."""
    console.print(Text(line))


class _Bar(Progress):
    """One row for every step, and below them what is known about the latest."""

    beside = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The table of bars, and a line as wide as the terminal."""
        yield self.make_tasks_table(self.tasks)
        yield Text(self.beside, overflow="fold", no_wrap=False)


@dataclass(frozen=True)
class _Shown:
    """What one look at a step found."""

    step: str
    done: int
    total: int
    figures: str
    training: Training | None
    live: Live | None
    eta_s: int | None

    @property
    def beside(self) -> str:
        """What to read beside done and total."""
        eta = f"ETA {duration(self.eta_s)}" if self.eta_s else ""
        return " · ".join(filter(None, [self.figures, self.live.line() if self.live else "", eta]))

    @property
    def news(self) -> tuple[object, ...]:
        """What must change for another line to be worth reading."""
        live = self.live or Live()
        return (self.step, self.done, self.total, live.replies, live.throttled, live.retried, live.failed)


@dataclass
class StageProgress:
    """Progress of one stage, shown as a bar in a terminal and as plain lines elsewhere.

    `with StageProgress("sft", folder) as progress: progress.update("training", 3, 20, "loss 1.2")`
    """

    stage: str
    folder: Path
    clock: Callable[[], float] = time.monotonic
    _bar: _Bar | None = None
    _tasks: dict[str, int] = field(default_factory=dict)
    _etas: dict[str, Eta] = field(default_factory=dict)
    _ended: dict[str, tuple[int, int]] = field(default_factory=dict)
    _latest: tuple[str, int, int, str | Training, Callable[[], Live] | None] | None = None
    _printed: tuple[object, ...] = ()
    _printed_at: float = float("-inf")
    _next_look: float = float("-inf")
    _next_write: float = float("-inf")

    def __enter__(self) -> StageProgress:
        """Start the bar where stderr is a terminal."""
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = _Bar(*columns, console=console)
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Leave the last state in progress.json, and on screen where it is news: an end was told as it came."""
        try:
            if self._latest:
                step, done, total = self._latest[:3]
                told = kind is None and self._ended.get(step) == (done, total)
                with contextlib.suppress(OSError):  # a full disk has said so already
                    self._look(self.clock(), "stopped" if kind else "running", last=True, told=told)
        finally:
            if self._bar:
                self._bar.stop()

    def update(
        self, step: str, done: int, total: int, figures: str | Training = "", live: Callable[[], Live] | None = None
    ) -> None:
        """Show that `done` of `total` are done; cheap enough to be called for every reply.

        Args:
            step: what is being done.
            done: items done.
            total: items in all.
            figures: what to read beside it; a trainer's go into progress.json one by one too.
            live: gives the engine's figures; called only when they are shown.
        """
        now = self.clock()
        self._latest = (step, done, total, figures, live)
        known = step in self._etas and (done < total or self._ended.get(step) == (done, total))
        if not known or now >= self._next_look:
            self._look(now, "running", last=not known and done >= total)

    def _look(self, now: float, state: State, *, last: bool, told: bool = False) -> None:
        assert self._latest
        step, done, total, figures, live = self._latest
        found = live() if live else None
        eta_s = self._etas.setdefault(step, Eta()).seconds(now, done, total, found)
        training = figures if isinstance(figures, Training) else None
        text = training.line() if training else str(figures)
        shown = _Shown(step, done, total, text, training, found, eta_s)
        self._next_look = now + (BAR_S if self._bar else WRITE_S)
        if done >= total:
            self._ended[step] = (done, total)
        if last or now >= self._next_write:
            self._next_write = now + WRITE_S
            self._write(shown, state)
        if self._bar:
            self._draw(self._bar, shown)
        elif not told and self._worth_a_line(now, shown, last=last):
            self._printed, self._printed_at = shown.news, now
            say(f"{self.stage}: {step} {done}/{total}  {shown.beside}".rstrip())

    def _worth_a_line(self, now: float, shown: _Shown, *, last: bool) -> bool:
        if shown.news == self._printed:
            return not last and now - self._printed_at >= STILL_S
        return last or now - self._printed_at >= PLAIN_S

    def _write(self, shown: _Shown, state: State) -> None:
        progress = {"stage": self.stage} | asdict(shown) | {"state": state, "updated": time.time()}
        progress |= {"pid": os.getpid(), "host": socket.gethostname()}
        path = self.folder / "progress.json"
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        # No fsync, unlike every other file: nothing depends on it, and the event loop must not wait for the disk.
        try:
            temporary.write_text(json.dumps(progress, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _draw(self, bar: _Bar, shown: _Shown) -> None:
        step = shown.step
        if step not in self._tasks:
            self._tasks[step] = bar.add_task(f"{self.stage}: {step}", total=shown.total)
        bar.beside = shown.beside
        bar.update(self._tasks[step], completed=shown.done, total=shown.total)  # type: ignore[arg-type]
