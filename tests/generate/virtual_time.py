"""An event loop whose time jumps to the next timer: minutes of waiting are tested in milliseconds, and always alike.

assert run_virtually(main, pace) == ...
# `asyncio.sleep` and `time.monotonic` of the module `pace` share one clock
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar

import pytest

Value = TypeVar("Value")


class _Jumping(selectors.SelectSelector):
    now = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        if not found:
            assert timeout is not None, "deadlock: everything waits and no timer runs"
            self.now += max(1e-6, timeout)  # a turn of the loop takes time, as it really does
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop; `time()` is its own clock."""

    def __init__(self) -> None:
        self.clock = _Jumping()
        super().__init__(self.clock)

    def time(self) -> float:
        return self.clock.now


def run_virtually(work: Callable[[], Coroutine[Any, Any, Value]], *modules: ModuleType) -> Value:
    """Run a coroutine in virtual time; `time.monotonic` of these modules shows it too."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner, pytest.MonkeyPatch.context() as patch:
        clock = SimpleNamespace(monotonic=runner.get_loop().time)
        for module in modules:
            patch.setattr(module, "time", clock)
        return runner.run(work())
