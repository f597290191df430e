"""Send the offline logs of a run's trainers: `cai publish logs`.

wandb     `wandb sync`, with the key in WANDB_API_KEY or in the file that WANDB_API_KEY_FILE names
trackio   `trackio sync` to the Space OWNER/NAME in TRACKIO_SPACE_ID, with the Hub's write token; a new Space is private

TensorBoard's files are read where they lie. Only stages that finished are sent, so a curve is sent once and whole. The
trackers' own programs do the sending; a key reaches them through the environment alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from jobs.common.console import say
from jobs.common.context import RunContext
from jobs.common.errors import ConfigError, UnavailableError
from jobs.common.runlock import run_lock
from jobs.publish.hub import REPO, VARIABLE, write_token
from jobs.publish.secret import read_secret

STAGES = ("sft", "dpo")
PATIENCE_S = 900.0
"""W&B's program tries an address that does not answer for ever."""
KEPT = ("PATH", "HOME", "LANG", "PYTHONPATH", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "HF_HOME", "HF_ENDPOINT",
        "WANDB_BASE_URL", "WANDB_ENTITY", "HTTPS_PROXY", "NO_PROXY")  # fmt: skip
"""What the trackers' programs see of the environment: no other key, and no mode that keeps them from sending."""


@dataclass(frozen=True)
class Sending:
    """One program to run."""

    stage: str
    tracker: str
    command: list[str]
    environment: dict[str, str]
    secret: str
    """What must not be repeated of its output."""


def publish_logs(context: RunContext, environment: Mapping[str, str] = os.environ) -> None:
    """Send what the trainers of a run logged for trackio or W&B.

    Args:
        context: which run.
        environment: where keys and addresses come from.

    Raises:
        ConfigError: no logs, no finished stage, no key, no Space, or the tracker's package is not installed.
        UnavailableError: the tracker's program failed; its last line is told.
    """
    with run_lock(context.folder, "publish"):
        logs = _logs(context)
        if not logs:
            where = f"tensorboard --logdir {context.folder}"
            say(f"publish: TensorBoard's files are read where they lie ({where}); nothing to send")
            return
        for sending in [_sending(context, stage, tracker, environment) for stage, tracker in logs]:
            say(f"publish: sending the {sending.tracker} log of {sending.stage}")
            _run(sending)
            say(f"publish: the {sending.tracker} log of {sending.stage} is sent")


def _logs(context: RunContext) -> list[tuple[str, str]]:
    """Stage and tracker of every offline log of a finished stage; empty where there are TensorBoard's files alone.

    Raises:
        ConfigError: nothing is finished, or nothing was logged.
    """
    trained = [stage for stage in STAGES if (context.folder / stage).is_dir()]
    finished = [stage for stage in trained if (context.folder / stage / "manifest.json").exists()]
    if not finished:
        missing = f"{trained[0]} has not finished" if trained else "nothing is trained yet"
        raise ConfigError(f"{context.folder}: {missing}. Run: {context.command(trained[0] if trained else 'sft')}")
    for stage in trained:
        if stage not in finished:
            say(f"publish: {stage} has not finished; its log stays here until it has")
    kinds = ("tensorboard", "trackio", "wandb")
    found = [(stage, kind) for stage in finished for kind in kinds if (context.folder / stage / kind).is_dir()]
    if not found:
        raise ConfigError(f"{context.folder}: {' and '.join(finished)} left no tracker's files; nothing to send.")
    return [(stage, kind) for stage, kind in found if kind != "tensorboard"]


def _sending(context: RunContext, stage: str, tracker: str, environment: Mapping[str, str]) -> Sending:
    if find_spec(tracker) is None:
        raise ConfigError(f"{tracker} is not installed here, and only it can send its log. Run: pip install {tracker}")
    kept = {name: environment[name] for name in KEPT if name in environment}
    if tracker == "wandb":
        return _wandb(context.folder / stage / "wandb", stage, kept, environment)
    return _trackio(context, stage, kept, environment)


def _wandb(folder: Path, stage: str, kept: dict[str, str], environment: Mapping[str, str]) -> Sending:
    key = read_secret("WANDB_API_KEY", environment)
    if key is None:
        raise ConfigError("No W&B key: set WANDB_API_KEY, or WANDB_API_KEY_FILE to a file that holds it.")
    runs = [str(path.resolve()) for path in sorted(folder.glob("offline-run-*"))]
    if not runs:
        raise ConfigError(f"{folder} holds no offline run; W&B's program would have nothing to send.")
    command = [sys.executable, "-m", "wandb", "sync", *runs]
    return Sending(stage, "wandb", command, kept | {"WANDB_API_KEY": key, "WANDB_ERROR_REPORTING": "false"}, key)


def _trackio(context: RunContext, stage: str, kept: dict[str, str], environment: Mapping[str, str]) -> Sending:
    space, token = environment.get("TRACKIO_SPACE_ID", ""), write_token(environment)
    if not REPO.fullmatch(space):
        raise ConfigError(f"TRACKIO_SPACE_ID: found {space!r}. Expected the Space to send to, OWNER/NAME.")
    if token is None:
        raise ConfigError(f"No write token: set {VARIABLE}, or {VARIABLE}_FILE to a file that holds it.")
    project = f"{context.run}-{stage}"
    command = [sys.executable, "-m", "trackio.cli", "sync", "--project", project, "--space-id", space]
    there = {"TRACKIO_DIR": str((context.folder / stage / "trackio").resolve()), "HF_TOKEN": token}
    return Sending(stage, "trackio", [*command, "--private", "--force"], kept | there, token)


def _run(sending: Sending) -> None:
    """Run a tracker's program with nobody to ask, in a folder of its own: W&B's leaves its own log where it runs."""
    try:
        with TemporaryDirectory() as folder:
            done = subprocess.run(
                sending.command, cwd=folder, env=sending.environment, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", timeout=PATIENCE_S,
                check=False,
            )  # fmt: skip
        status, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired:
        status, output = 1, f"no answer for {PATIENCE_S / 60:.0f} min"
    if status:
        lines = output.replace(sending.secret, "***").strip().splitlines() or ["it says nothing"]
        raise UnavailableError(
            f"{sending.tracker}: {lines[-1].strip()[:300]} (exit {status}). Run the same command again to send it."
        )
