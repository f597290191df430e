"""Runs a driver as a process of its own: JSON in as argument, JSON out on the last line, times by the same clock."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


class ChildError(Exception):
    """A driver failed or took too long; one line says how."""


@dataclass(frozen=True)
class Child:
    """A finished driver."""

    said: dict[str, Any]
    """What it printed."""
    begun_at: float
    """`time.monotonic()` when it was started."""
    ended_at: float


def run_child(module: str, spec: dict[str, Any], timeout_s: float = 300.0) -> Child:
    """Run `python -m module JSON` and read its last line.

    Raises:
        ChildError: it failed, or took too long.
    """
    return run_command([sys.executable, "-m", module, json.dumps(spec)], timeout_s)


def run_command(command: list[str], timeout_s: float, environment: dict[str, str] | None = None) -> Child:
    """Run a command whose last line of output is JSON.

    Raises:
        ChildError: it failed, or took too long.
    """
    begun_at = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise ChildError(f"no end after {timeout_s:.0f} s") from None
    finally:
        if process.poll() is None:  # too late, or Ctrl-C, which its own session does not see
            _end_group(process)
    ended_at = time.monotonic()
    if process.returncode:
        raise ChildError(f"exit {process.returncode}: {_last_error(err)}")
    return Child(json.loads(out.splitlines()[-1]), begun_at, ended_at)


def _last_error(said: str) -> str:
    lines = [line.strip(" |+-") for line in said.splitlines()]
    named = [line for line in lines if "Error" in line] or [line for line in lines if line]
    return named[-1][:200] if named else "no message"


def _end_group(process: subprocess.Popen[str]) -> None:
    # Peers start processes of their own; the group is the one made for this driver.
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
