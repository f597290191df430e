"""SIGTERM: at once where nothing can be lost, else as soon as it can be saved.

While a model is loaded, rows are tokenised, layers are compiled or held-out rows are measured, the signal ends the job
there and then. Within a step it ends the forward or backward pass it meets, and the step with it: the weights are still
those of the last whole step, which is saved. Only while weights change or files are written does it wait.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from jobs.common.errors import JobError, StoppedError

LINE = "Stopped by SIGTERM. Run the same command to go on."


@dataclass
class StopFlag:
    """Set by SIGTERM."""

    asked: bool = False
    at_once: bool = True
    """Whether the signal may end what runs now, wherever it meets it."""
    alone: bool = True
    """False where other processes take part: they decide together, so the signal only sets the flag."""

    def obey(self) -> None:
        """Stop where the signal has come and may end what runs now.

        Raises:
            StoppedError: it has.
        """
        if self.asked and self.at_once and self.alone:
            raise StoppedError(LINE)

    @contextmanager
    def waits(self) -> Iterator[None]:
        """A block in which the signal only sets the flag, but for its `interruptible` parts."""
        before, self.at_once = self.at_once, False
        try:
            yield
        finally:
            self.at_once = before

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A part of such a block that can be thrown away.

        Raises:
            StoppedError: the signal came, also where a library made another error of it, as torch's compiler does.
        """
        before, self.at_once = self.at_once, True
        try:
            self.obey()
            yield
        except Exception as error:
            if self.asked and self.alone and not isinstance(error, JobError):
                raise StoppedError(LINE) from error
            raise
        finally:
            self.at_once = before


@contextmanager
def sigterm_sets(flag: StopFlag) -> Iterator[None]:
    """Let SIGTERM set the flag, and end what may be ended; the handler before is put back."""

    def ask(_signal: int, _frame: FrameType | None) -> None:
        flag.asked = True
        flag.obey()

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
