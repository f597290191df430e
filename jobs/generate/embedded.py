"""The embedded server: llama.cpp behind an OpenAI-compatible API on the loopback, inside this process.

    with serve(gguf, Slots(parallel=8, context_tokens=1024), again) as served: ...

It ends with the job, however the job ends. A small model gets one single-threaded server per core instead of one
server with many threads: llama.cpp's threads wait for each other by spinning, and on two busy cores that was measured
at 7 tokens/s against 70 with one thread.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.common.errors import ConfigError

SMALL_MODEL_BYTES = 400_000_000
"""Up to this size a model is served once per core."""

MOST_SERVERS = 4
MOST_SLOTS = 8
"""Slots of one server; more make each reply slower and the sum no faster."""


@dataclass(frozen=True)
class Slots:
    """How much a server should take at once."""

    parallel: int
    """Requests in flight, over all servers."""
    context_tokens: int
    """Longest request and reply together, in tokens."""


@dataclass(frozen=True)
class Served:
    """Running servers."""

    urls: tuple[str, ...]
    """Base URL of each."""
    slots: int
    """Requests they work on at once, all together; more would only wait."""


@contextmanager
def serve(gguf: Path, slots: Slots, again: str) -> Iterator[Served]:
    """Serve a GGUF file and yield where.

    Args:
        gguf: the file.
        slots: how much each server should take at once, all together.
        again: the command that brings the file anew; for messages.

    Raises:
        ConfigError: xllamacpp is not installed, or the file is no model it can load.
    """
    cores = len(os.sched_getaffinity(0))
    small = gguf.stat().st_size <= SMALL_MODEL_BYTES
    count = max(1, min(cores, MOST_SERVERS, slots.parallel)) if small else 1
    each = max(1, min(MOST_SLOTS, -(-slots.parallel // count)))
    threads = 1 if small else cores
    servers = [_start(gguf, Slots(each, slots.context_tokens), threads, again) for _ in range(count)]
    try:
        yield Served(tuple(f"{server.listening_address}/v1" for server in servers), min(each * count, slots.parallel))
    finally:
        servers.clear()  # a server stops when nothing refers to it


def _start(gguf: Path, slots: Slots, threads: int, again: str) -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        raise ConfigError(f"The embedded model needs xllamacpp ({error}). Run: pip install 'cai[cpu]'") from error
    params = xllamacpp.CommonParams()
    params.model.path = str(gguf)
    params.n_parallel = slots.parallel
    params.n_ctx = slots.context_tokens * slots.parallel
    params.n_threads_http = slots.parallel + 2
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.ui = False
    params.cache_ram_mib = 0  # a lane's chat stays in its slot; copies of it would only fill memory
    params.verbosity = 0
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise ConfigError(f"{gguf} cannot be served: {error}. Run: {again}") from error
