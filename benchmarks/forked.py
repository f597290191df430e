"""A stage's command in processes that can be killed, each forked from one that has imported torch already."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Literal

import yaml

from jobs.common.jsonl import sha256_file
from jobs.common.stage import RunContext
from jobs.train.chain import ADAPTER

SAVE_S = 0.05
"""Longest wait between the moment a checkpoint's folder appears and the signal."""
POLL_S = 0.002

Signal = Literal["kill", "terminate"]


@dataclass(frozen=True)
class Attempts:
    """Copies of one run, and one stage's command for each."""

    context: RunContext
    """A run whose earlier stages have finished."""
    stage: str
    threads: int
    """For torch, in every process."""

    def copy(self, run: str) -> RunContext:
        """The earlier stages under another run's name."""
        for path in sorted(self.context.folder.iterdir()):
            if path.is_dir() and path.name != self.stage:
                shutil.copytree(path, self.context.runs / run / path.name)
        return RunContext(recipe=self.context.recipe, run=run, runs=self.context.runs)

    def start(self, run: str) -> ForkServerProcess:
        """Begin the command for a run; what it says goes to RUN.log."""
        recipe = self.context.runs / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(self.context.recipe.model_dump(mode="json")), encoding="utf-8")
        command = [self.stage, "--recipe", str(recipe), "--run", run, "--runs", str(self.context.runs)]
        process = server().Process(target=_run, args=(command, self._log(run), self.threads))
        process.start()
        return process

    def said(self, run: str) -> str:
        """Everything that a run's attempts have said."""
        return self._log(run).read_text(encoding="utf-8", errors="replace")

    def adapter(self, run: str) -> str:
        """Hash of the adapter that a run ended with."""
        return sha256_file(self.context.runs / run / self.stage / "adapter" / ADAPTER)

    def _log(self, run: str) -> Path:
        return self.context.runs / f"{run}.{self.stage}.log"


@dataclass(frozen=True)
class Moments:
    """When a command is killed, and how."""

    draw: random.Random
    whole_s: float
    """Seconds that the command takes undisturbed."""
    by: Signal

    def wait(self, process: ForkServerProcess, folder: Path) -> None:
        """Until a random moment, or one within a save, or the end of the process; `folder` holds the checkpoints."""
        while process.is_alive() and not heeds_sigterm(process):
            time.sleep(POLL_S)
        began, known = time.monotonic(), set(folder.glob("checkpoint-*"))
        at_save, delay_s = self.draw.random() < 0.5, self.draw.uniform(0, SAVE_S)
        last = began + (self.whole_s if at_save else self.draw.uniform(0, self.whole_s))
        while process.is_alive() and time.monotonic() < last:
            if at_save and set(folder.glob("checkpoint-*")) - known:
                time.sleep(delay_s)
                return
            time.sleep(POLL_S)


def heeds_sigterm(process: ForkServerProcess) -> bool:
    """Whether the process has a handler for SIGTERM: not before its command begins, and not after it has ended."""
    return bool(int(_status(process, "SigCgt") or "0", 16) >> (signal.SIGTERM - 1) & 1)


def freeze_where(process: ForkServerProcess, holds: Callable[[], bool]) -> None:
    """Stop the process (SIGSTOP) where something holds, so that it goes on holding; the process may end before."""
    while process.is_alive() and process.pid:
        if holds():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGSTOP)
                while _status(process, "State") not in {"", "T", "Z"}:
                    time.sleep(POLL_S)
                if holds():
                    return
                os.kill(process.pid, signal.SIGCONT)
        time.sleep(POLL_S)


def _status(process: ForkServerProcess, name: str) -> str:
    """A value that the kernel has for a process; empty once it is gone."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return next((line.split()[1] for line in lines if line.startswith(f"{name}:")), "")


@cache
def server() -> ForkServerContext:
    """Where processes come from that have imported what training needs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.forked_imports"])
    return context


def _run(command: list[str], log: Path, threads: int) -> None:
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import torch

    from jobs.__main__ import main

    torch.set_num_threads(threads)
    sys.exit(main(command))
