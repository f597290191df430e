"""One compose project of the tests: a copy of the checkout as a fresh clone has it, its own name, its own volume."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
OUTSIDE = {name: value for name, value in os.environ.items() if not name.startswith(("CAI_", "OPENAI_", "COMPOSE_"))}
BUILD = {name: os.environ[name] for name in ("CAI_CA_FILE", "CAI_BASE") if name in os.environ}
"""Read when the tests are collected; the settings of the user's shell are gone later."""

CPU = ("compose.yaml", "compose.cpu.yaml")
TRAINERS = ("initial", "sft", "dpo", "respond")


def clone_checkout(folder: Path) -> Path:
    """Copy what git would give a fresh clone, with the changes that are not committed yet."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        source, target = CHECKOUT / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    return folder


@dataclass
class Project:
    """Runs compose in a clone and looks at what it left, through the docker SDK."""

    engine: Any
    folder: Path
    name: str
    files: tuple[str, ...] = CPU
    environment: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[str]] = field(default_factory=list)
    """Compose commands; `down` ends those that a failed test left."""

    def command(self, *arguments: str, profile: str = "dpo") -> list[str]:
        """A compose command line of this project."""
        files = [part for file in self.files for part in ("-f", file)]
        return ["docker", "compose", "-p", self.name, *files, "--profile", profile, *arguments]

    def start(self, *arguments: str, profile: str = "dpo") -> subprocess.Popen[str]:
        """Start a compose command; its output is kept."""
        process = subprocess.Popen(
            self.command(*arguments, profile=profile),
            cwd=self.folder,
            env=OUTSIDE | BUILD | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(process)
        return process

    def run(self, *arguments: str, profile: str = "dpo", timeout_s: float = 2400) -> subprocess.CompletedProcess[str]:
        """Run a compose command to its end."""
        process = self.start(*arguments, profile=profile)
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.terminate()
            output, _ = process.communicate(timeout=180)
            raise AssertionError(f"{arguments} did not end in {timeout_s} s. It said:\n{output[-4000:]}") from None
        return subprocess.CompletedProcess(process.args, process.returncode, output, "")

    def up(self, profile: str) -> subprocess.CompletedProcess[str]:
        """The form that README and Makefile use."""
        return self.run(*up_arguments(profile), profile=profile)

    def container(self, service: str) -> Any:
        """The service's container, running or not; None before it was created."""
        labels = [f"com.docker.compose.project={self.name}", f"com.docker.compose.service={service}"]
        found = [
            container
            for container in self.engine.containers.list(all=True, filters={"label": labels})
            if container.labels.get("com.docker.compose.oneoff") == "False"
        ]
        return found[0] if found else None

    def state(self, service: str) -> dict[str, Any]:
        """What the engine knows of the service's container."""
        found: dict[str, Any] = self.container(service).attrs["State"]
        return found

    def exec_in_volume(self, script: str) -> str:
        """Run a shell script in a container of its own that sees the volume at /runs."""
        output: bytes = self.engine.containers.run(
            "cai-cpu",
            ["-c", script],
            entrypoint="sh",
            network_mode="none",
            remove=True,
            volumes={f"{self.name}_runs": {"bind": "/runs", "mode": "rw"}},
        )
        return output.decode()

    def exec_in(self, service: str, script: str) -> str:
        """Run a shell script inside the service's running container; quick enough to watch a job closely."""
        output: bytes = self.container(service).exec_run(["sh", "-c", script], stderr=False).output
        return output.decode()

    def read_json(self, path: str) -> Any:
        """A JSON file of the volume, by its path below /runs."""
        return json.loads(self.exec_in_volume(f"cat /runs/{path}"))

    def digests(self, pattern: str) -> dict[str, str]:
        """SHA-256 of every file of the volume whose path below /runs matches."""
        lines = self.exec_in_volume(f"cd /runs && sha256sum {pattern}").splitlines()
        return {line.split()[1]: line.split()[0] for line in lines}

    def inside(self, service: str, program: str) -> subprocess.CompletedProcess[str]:
        """Run Python code as the service would run: same user, mounts, network and limits."""
        return self.run("run", "--rm", "--no-deps", "-T", "--entrypoint", "python", service, "-c", program)

    def down(self) -> None:
        """Remove everything this project left on the engine."""
        for process in self.started:
            if process.poll() is None:
                process.terminate()
                process.communicate(timeout=180)
        self.run("down", "-v", "--remove-orphans", timeout_s=300)


def up_arguments(profile: str) -> tuple[str, ...]:
    """The arguments of the form whose exit code tells the truth."""
    return ("up", "--abort-on-container-failure", "--exit-code-from", profile)


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Poll until `condition` holds.

    Raises:
        TimeoutError: it did not in time.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s} s")
        time.sleep(0.2)


def journal_keys(text: str) -> Iterator[str]:
    """The request key of every whole line of a journal."""
    for line in text.splitlines():
        try:
            yield json.loads(line)["key"]
        except (ValueError, KeyError):
            continue
