"""`cai generate` as a process, in a small world of its own: three principles, a chain for each prompt, our server."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from benchmarks.children import ROOT
from jobs.common.recipe import load_recipe
from jobs.common.stage import RunContext
from jobs.generate.journal import open_journal
from tests.generate.world import finish_fetch, write_constitution

RUN = "bench"
NOT_OUTPUT = {"begun.json", "manifest.json", "progress.json"}
"""They hold times and paths."""


@dataclass(frozen=True)
class Command:
    """One runs folder and the server it asks."""

    folder: Path
    url: str
    prompts: int
    """Prompts for each of the three principles; each is a chain of three requests."""

    @property
    def runs(self) -> Path:
        """Folder of all state."""
        return self.folder / "runs"

    @property
    def stage(self) -> Path:
        """Folder of the stage's outputs."""
        return self.runs / RUN / "generate"

    @property
    def constitution(self) -> Path:
        """The constitution's file."""
        return self.folder / "tiny.yaml"

    def prepare(self) -> Command:
        """Write constitution and recipe, and leave what fetch leaves."""
        self.folder.mkdir(parents=True)
        write_constitution(self.constitution)
        recipe = self.folder / "recipe.yaml"
        recipe.write_text(
            f"constitution: {self.constitution}\n"
            "teacher: {endpoint: api, model: fake-teacher}\n"
            f'initial: {{endpoint: "{self.url}", model: fake-student}}\n'
            f"generate: {{prompts_per_principle: {self.prompts}, max_requests_per_principle: {self.prompts}, "
            "benign_twins: false, balance: false}\njudge: {rule: 'off'}\n",
            encoding="utf-8",
        )
        finish_fetch(RunContext(recipe=load_recipe(str(recipe)), run=RUN, runs=self.runs))
        return self

    def start(self, *more: str) -> subprocess.Popen[str]:
        """Start it."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CAI_")}
        environment |= {"OPENAI_BASE_URL": self.url, "OPENAI_API_KEY": "bench"}
        where = ["--recipe", str(self.folder / "recipe.yaml"), "--run", RUN, "--runs", str(self.runs)]
        return subprocess.Popen(
            [sys.executable, "-m", "jobs", "generate", *where, *more],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, *more: str) -> tuple[int, str]:
        """Run it to its end; gives the exit code and the last line of its errors."""
        process = self.start(*more)
        _, said = process.communicate(timeout=300)
        return process.returncode, (said.strip().splitlines() or [""])[-1]

    def kill_after(self, seconds: float, has_begun: Callable[[], bool]) -> bool:
        """Start it and kill it so many seconds after its first request; False when it had ended before.

        Args:
            seconds: from the first request on.
            has_begun: called until it is true.
        """
        process = self.start()
        while process.poll() is None and not has_begun():
            time.sleep(0.005)
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return process.returncode == -signal.SIGKILL

    def in_flight(self) -> set[str]:
        """Keys of what was sent and has no reply, by the journal; it is read from a copy."""
        copy = self.folder / "journal-copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.runs / "journal", copy)
        with closing(open_journal(copy)) as journal:
            return {attempt.key for attempt in journal.lost(RUN)}

    def outputs(self) -> dict[str, str]:
        """Hash of every output of the stage, by name."""
        paths = [path for path in self.stage.rglob("*") if path.is_file() and path.name not in NOT_OUTPUT]
        return {
            str(path.relative_to(self.stage)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(paths)
        }
