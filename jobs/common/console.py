"""What people see while a stage runs: one line per fact, and progress as a bar or as plain lines.

Everything goes to stderr; stdout is for results. progress.json says the same to programs.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from jobs.common.jsonl import write_json

console = Console(stderr=True, soft_wrap=True, highlight=False)

PLAIN_SECONDS = 10.0
"""Least time between two plain progress lines."""


def say(line: str) -> None:
    """Print one line for people."""
    console.print(Text(line))


@dataclass
class StageProgress:
    """Progress of one stage, shown as a bar in a terminal and as plain lines elsewhere.

    `with StageProgress("sft", folder) as progress: progress.update("training", 3, 20, "loss 1.2")`
    """

    stage: str
    folder: Path
    _bar: Progress | None = None
    _tasks: dict[str, int] = field(default_factory=dict)
    _begun: dict[str, tuple[float, int]] = field(default_factory=dict)
    _printed: float = 0.0
    _written: float = 0.0

    def __enter__(self) -> StageProgress:
        """Start the bar where stderr is a terminal."""
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[figures]}"), console=console)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the bar and leave its last state on screen."""
        if self._bar:
            self._bar.stop()

    def update(self, step: str, done: int, total: int, figures: str = "") -> None:
        """Show that `done` of `total` are done; `figures` is what to read beside it (tokens/s, $, loss)."""
        now = time.monotonic()
        begun_at, begun_done = self._begun.setdefault(step, (now, done))
        rate = (done - begun_done) / (now - begun_at) if now > begun_at else 0.0
        eta_s = round((total - done) / rate) if rate > 0 else None
        shown = f"{figures}  ETA {eta_s} s" if eta_s and figures else figures or (f"ETA {eta_s} s" if eta_s else "")
        finished = done >= total
        if finished or now - self._written >= 1.0:
            self._written = now
            progress = {"stage": self.stage, "step": step, "done": done, "total": total, "figures": figures}
            write_json(self.folder / "progress.json", progress | {"eta_s": eta_s, "updated": time.time()})
        if self._bar:
            self._draw(self._bar, step, done, total, shown)
        elif finished or now - self._printed >= PLAIN_SECONDS:
            self._printed = now
            say(f"{self.stage}: {step} {done}/{total}  {shown}".rstrip())

    def _draw(self, bar: Progress, step: str, done: int, total: int, figures: str) -> None:
        if step not in self._tasks:
            self._tasks[step] = bar.add_task(f"{self.stage}: {step}", total=total, figures="")
        bar.update(self._tasks[step], completed=done, total=total, figures=figures)  # type: ignore[arg-type]
