"""Drives the sides of one case: each in a process of its own, in turns on a CPU, one after another on a GPU.

On a CPU the turns interleave, so that what else the machine does hits all sides alike. On a GPU a side that waits
would hold memory that the others may need.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from queue import Empty, Queue
from typing import Any

from benchmarks.children import ROOT, ChildError
from benchmarks.training_models import Case

ROUNDS = 3
ROUND_S = {"cuda": 4.0, "cpu": 30.0}
"""A round ends with the step in which this is over."""


@dataclass
class Seen:
    """What one side showed of one case."""

    facts: dict[str, Any] = field(default_factory=dict)
    """Settings, start-up, what the search tried; and at the end peak memory and the losses of all steps."""
    rounds: list[list[list[float]]] = field(default_factory=list)
    """Per round, [seconds, tokens, rows or pairs, loss] of every step."""
    error: str = ""


class Side:
    """A process that trains."""

    def __init__(self, name: str) -> None:
        """Start it."""
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.training_side", name, str(time.time())],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._said: Queue[dict[str, Any]] = Queue()
        self._last = ""
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=self._listen, daemon=True).start()

    def order(self, **what: Any) -> None:
        """Tell it what to do."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(what) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise ChildError(f"ended: {self._last}") from None

    def answer(self, key: str, until: float, told: Callable[[str], None]) -> Any:
        """Wait for an answer of this kind.

        Raises:
            ChildError: an error came instead, the process ended, or time is over.
        """
        while True:
            try:
                said = self._said.get(timeout=max(until - time.monotonic(), 0.1))
            except Empty:
                raise ChildError("out of time") from None
            if key in said:
                return said[key]
            if "tried" in said:
                told(f"  {self.name} tried {said['tried']}")
            else:
                raise ChildError(said.get("error", f"unexpected answer {said}"))

    def end(self) -> None:
        """End the process."""
        if self.process.stdin:
            self.process.stdin.close()
        self.process.kill()
        self.process.wait()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said.put(json.loads(line))
        self._said.put({"error": f"process ended: {self._last}"})

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._last = line.strip() or self._last


@dataclass
class Drive:
    """All sides, started when first needed."""

    deadline: float
    """`time.monotonic()` at which everything ends."""
    told: Callable[[str], None]
    """Shows a line at once."""
    _sides: dict[str, Side] = field(default_factory=dict)

    def start(self, names: list[str]) -> None:
        """Start these sides together; start-up is then measured under that load."""
        for name in names:
            self._sides.setdefault(name, Side(name))

    def measure(self, case: Case, names: list[str], until: float) -> dict[str, Seen]:
        """Every side on this case.

        Args:
            case: what to train.
            names: the sides.
            until: no round begins after it, but every side gets one if the deadline allows.
        """
        seen = {name: Seen() for name in names}
        groups = [names] if case.model.device == "cpu" else [[name] for name in names]
        for number, group in enumerate(groups):
            share = (until - time.monotonic()) / (len(groups) - number)
            self._turns(case, {name: seen[name] for name in group}, time.monotonic() + share)
        return seen

    def end(self) -> None:
        """End all sides."""
        for side in self._sides.values():
            side.end()

    def _turns(self, case: Case, seen: dict[str, Seen], until: float) -> None:
        search_s = (until - time.monotonic()) / (2 * len(seen))
        for name, it in seen.items():
            with _fails_alone(self, name, it):
                self.start([name])
                self._sides[name].order(do="case", case=asdict(case), search_s=search_s)
                it.facts = self._sides[name].answer("ready", self.deadline, self.told)
        for number in range(ROUNDS):
            for name, it in seen.items():
                if it.error or (number and time.monotonic() > until):
                    continue
                with _fails_alone(self, name, it):
                    self._sides[name].order(do="round", seconds=ROUND_S[case.model.device])
                    it.rounds.append(self._sides[name].answer("round", self.deadline, self.told))
        for name, it in seen.items():
            if not it.error:
                with _fails_alone(self, name, it):
                    self._sides[name].order(do="end")
                    it.facts |= self._sides[name].answer("end", self.deadline, self.told)

    def give_up(self, name: str) -> None:
        """End a side that failed: the next case gets a new process."""
        if name in self._sides:
            self._sides.pop(name).end()


@contextmanager
def _fails_alone(drive: Drive, name: str, seen: Seen) -> Iterator[None]:
    """One side's failure is its own figure; the others go on."""
    try:
        yield
    except ChildError as error:
        seen.error = str(error)[:200]
        drive.told(f"  {name}: {seen.error}")
        drive.give_up(name)
