"""SIGTERM while an event loop runs: cancel what is in flight and end as a stop that can be resumed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from jobs.common.errors import StoppedError

Value = TypeVar("Value")


def run_until_stopped(work: Coroutine[Any, Any, Value], rerun: str) -> Value:
    """Run the work; SIGTERM cancels what is in flight and ends it as a StoppedError.

    Raises:
        StoppedError: SIGTERM came.
    """
    before = signal.getsignal(signal.SIGTERM)
    stopped = False

    async def main() -> Value:
        task = asyncio.current_task()

        def stop() -> None:
            nonlocal stopped
            stopped = True
            if task:
                task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        return await work

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        if not stopped:
            raise
        raise StoppedError(f"Stopped by SIGTERM; every reply so far is journalled. Run again: {rerun}") from None
    finally:
        signal.signal(signal.SIGTERM, before)
