"""SIGTERM while an event loop runs: let what is on its way arrive, then end as a stop that can be resumed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from jobs.common.errors import StoppedError

Value = TypeVar("Value")


def run_until_stopped(
    work: Coroutine[Any, Any, Value], rerun: str, drain: Callable[[], Awaitable[None]] | None = None
) -> Value:
    """Run the work; SIGTERM ends it as a StoppedError, after `drain` waited for what is paid for and on its way.

    Raises:
        StoppedError: SIGTERM came.
    """
    before = signal.getsignal(signal.SIGTERM)
    stopping: list[asyncio.Task[None]] = []

    async def main() -> Value:
        task = asyncio.current_task()
        assert task

        async def stop() -> None:
            if drain:
                await drain()
            task.cancel()

        def on_signal() -> None:
            if stopping:  # a second SIGTERM waits for nothing
                task.cancel()
            stopping.append(asyncio.ensure_future(stop()))

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, on_signal)
        return await work

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        if not stopping:
            raise
        raise StoppedError(f"Stopped by SIGTERM; every reply so far is journalled. Run again: {rerun}") from None
    finally:
        signal.signal(signal.SIGTERM, before)
