"""One training stage on several GPUs of this machine: the same command in a process per GPU.

    python -m jobs.train.launch recipes/accelerate/ddp.yaml sft --recipe RECIPE.yaml --run RUN

Reads accelerate's configuration and starts what `accelerate launch` would, which also works. But that one kills what
has not ended 30 seconds after SIGTERM, saved or not, and turns every exit code into 1. This one passes SIGTERM and
SIGINT on, waits, and ends with the stage's exit code: 0 done, 75 run it again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import Any

import yaml

from jobs.common.errors import ConfigError

GRACE_S = 60.0
"""How long the others may take to end once one has failed: they notice at their next exchange."""
POLL_S = 0.1
HOST = "127.0.0.1"
INSTEAD = "Take recipes/accelerate/ddp.yaml or fsdp.yaml and set num_processes."


def main(arguments: list[str]) -> int:
    """Run the stage; returns its exit code.

    Args:
        arguments: accelerate's configuration file, then what follows `cai`.
    """
    if len(arguments) < 2 or arguments[1] not in ("sft", "dpo") or not os.path.exists(arguments[0]):
        lost = arguments and not os.path.exists(arguments[0])
        why = f"{arguments[0]} does not exist. " if lost else ""
        print(f"{why}Usage: python -m jobs.train.launch CONFIG.yaml sft|dpo [OPTION]...", file=sys.stderr)
        return 2
    if {"-h", "--help"} & {*arguments[2:]}:
        from jobs.__main__ import main as cai

        return cai(arguments[1:])
    try:
        environment, count = _environment(arguments[0])
    except ConfigError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    store = _meeting_place()
    environment |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    environment |= {"MASTER_ADDR": HOST, "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    asked: list[int] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        children = [_start(arguments[1:], environment, rank) for rank in range(count)]
        return _wait(children, asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _environment(config: str) -> tuple[dict[str, str], int]:
    """Accelerate's own variables for this configuration, and the number of processes.

    Raises:
        ConfigError: accelerate cannot read it, or it asks for no process.
    """
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    given = launch_command_parser().parse_args(["--config_file", config, "-m", "jobs"])
    threads = os.environ.get("OMP_NUM_THREADS")
    try:
        given, _, _ = _validate_launch_command(given)
        found: dict[str, str] = prepare_multi_gpu_env(given)
        count = int(given.num_processes)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"{config}: accelerate cannot use it ({why[:200]}). {INSTEAD}") from error
    if count < 1:
        raise ConfigError(f"{config}: num_processes is {count}, expected 1 or more. {INSTEAD}")
    if threads:
        found["OMP_NUM_THREADS"] = threads
    return found, count


def _meeting_place() -> Any:
    """Where the processes find each other, on a port that is ours as long as this lives, as torchrun has it."""
    import torch.distributed

    return torch.distributed.TCPStore(HOST, 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]


def _start(command: list[str], environment: dict[str, str], rank: int) -> subprocess.Popen[bytes]:
    # In a session of its own: Ctrl-C in a terminal reaches it once, through us. Stages speak on stderr; stdout would be
    # Gloo's, which tells how many it met.
    return subprocess.Popen(
        [sys.executable, "-m", "jobs", *command],
        env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def _wait(children: list[subprocess.Popen[bytes]], asked: list[int]) -> int:
    """Until all have ended; the exit code of the first that failed, a signal as 128 + its number."""
    failure, since = 0, 0.0
    while any(child.poll() is None for child in children):
        while asked:
            _signal(children, asked.pop(0))
        bad = [child.returncode for child in children if child.returncode]
        if bad and not failure:
            failure, since = bad[0], time.monotonic()
        if failure and time.monotonic() - since > GRACE_S:
            _signal(children, signal.SIGKILL)
        time.sleep(POLL_S)
    failure = failure or next((child.returncode for child in children if child.returncode), 0)
    return failure if failure >= 0 else 128 - failure


def _signal(children: list[subprocess.Popen[bytes]], number: int) -> None:
    for child in children:
        if child.poll() is None:
            child.send_signal(number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
