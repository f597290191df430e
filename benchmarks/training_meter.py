"""What a side of the training benchmark measures of itself, and how it and the parent talk: a line of JSON each way."""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

WARM_UP = {"cuda": 3, "cpu": 1}
"""Steps that no figure counts but the losses and start-up."""


@dataclass
class Meter:
    """Times optimizer steps; what happens between `step` and its return is not counted."""

    device: str
    after: Callable[[list[list[float]]], bool]
    """Called after every step with all steps; True ends training."""
    steps: list[list[float]] = field(default_factory=list)
    """[seconds, useful tokens, rows or pairs, loss] of every step."""
    _at: float = 0.0

    def begin(self) -> None:
        """Training begins now."""
        self._at = self._now()

    def step(self, tokens: float, rows: float, loss: float) -> bool:
        """A step ended; says whether training should."""
        self.steps.append([self._now() - self._at, tokens, rows, loss])
        ended = self.after(self.steps)
        self._at = self._now()
        return ended

    def _now(self) -> float:
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()
        return time.perf_counter()


@dataclass
class Channel:
    """The pipe to the parent."""

    out: TextIO
    begun_at: float
    """`time.time()` when the parent started this process."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Told with `ready`."""
    search_s: float = 0.0
    """After these seconds no further candidate is tried."""
    _first: int = 0
    _limit_s: float = 0.0
    _start_s: float | None = None

    def say(self, **what: Any) -> None:
        """Tell the parent."""
        self.out.write(json.dumps(what) + "\n")
        self.out.flush()

    def hear(self) -> dict[str, Any]:
        """The parent's next order; `quit` when it is gone."""
        line = sys.stdin.readline()
        return dict(json.loads(line)) if line else {"do": "quit"}

    def first_step_ended(self) -> None:
        """Start-up is over; counts once in a process."""
        if self._start_s is None:
            self._start_s = time.time() - self.begun_at

    def rounds(self, warm_up: int) -> Callable[[list[list[float]]], bool]:
        """For `Meter.after`: train while a round lasts, then report and wait for the next order."""

        def after(steps: list[list[float]]) -> bool:
            self.first_step_ended()
            if len(steps) < warm_up:
                return False
            if len(steps) == warm_up:
                self.say(ready=self.facts | {"start_s": self._start_s})
                return self._ends(steps)
            if sum(step[0] for step in steps[self._first :]) < self._limit_s:
                return False
            self.say(round=steps[self._first :])
            return self._ends(steps)

        return after

    def _ends(self, steps: list[list[float]]) -> bool:
        order = self.hear()
        self._first, self._limit_s = len(steps), order.get("seconds", 0.0)
        return bool(order["do"] != "round")


def reset_peak(device: str) -> None:
    """Forget the highest memory use so far."""
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_bytes(device: str) -> int:
    """Highest memory since `reset_peak`: of tensors on a GPU, of the process on a CPU."""
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024
