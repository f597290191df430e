"""Look for what would stop a run before anything is downloaded or paid: `cai doctor`, on the host and in the image.

One line per check; exit code 78 where one fails. It holds no key, asks no endpoint and needs no network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from jobs.common.console import say
from jobs.common.errors import ConfigError
from jobs.common.model_shape import KNOWN
from jobs.common.stage import RunContext
from jobs.prepare.doctor_gpu import check_gpu
from jobs.prepare.doctor_keys import check_keys
from jobs.prepare.doctor_machine import Check, Machine

GIB = 2**30
DEMO_DISK = 3 * GIB
"""A run of a 135M model: its weights twice, two adapters with checkpoints, data."""
REAL_DISK = 40 * GIB
"""A run of a 7B model: weights, adapters, checkpoints, data."""
CPU_PARAMETERS = 2e8
"""Students of at most this size can be trained on a CPU, in hours, and need little disk."""


def run(context: RunContext) -> None:
    """Print every check of this machine for this recipe.

    Raises:
        ConfigError: a check failed; each failure is printed before.
    """
    checks = list(all_checks(context, Machine.this()))
    for check in checks:
        say(f"doctor: {check.level:<4} {check.topic}: {check.text}")
    failures = [check.topic for check in checks if check.level == "fail"]
    if failures:
        raise ConfigError(f"doctor found {len(failures)} that would stop the run: {', '.join(failures)} (see above).")


def all_checks(context: RunContext, machine: Machine) -> Iterator[Check]:
    """Yield one finding per trap."""
    shape = KNOWN.get(context.recipe.student.model)
    real_model = shape is None or shape.parameters > CPU_PARAMETERS
    yield check_gpu(machine, real_model=real_model)
    yield check_disk(context.runs, REAL_DISK if real_model else DEMO_DISK)
    if (context.folder / "generate/manifest.json").exists():
        yield Check("ok", "key", "none needed any more: generate has finished")
    else:
        yield from check_keys(machine, context.recipe)
    yield check_write(context.runs, machine)
    yield check_tmp(Path(tempfile.gettempdir()))


def check_disk(runs: Path, wanted: int) -> Check:
    """Compare the free space where state is written with what a run of this size wants, in bytes."""
    free = shutil.disk_usage(_existing(runs)).free
    text = f"{free / GIB:.0f} GiB free for {runs}"
    if free >= wanted:
        return Check("ok", "disk", text)
    text += f"; a run of this size wants {wanted / GIB:.0f} GiB. Free some, or choose another --runs."
    return Check("fail" if free < wanted / 10 else "warn", "disk", text)


def check_write(runs: Path, machine: Machine) -> Check:
    """Write and remove a file where state goes, as the user who will run the stages."""
    folder = _existing(runs)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-"):
            pass
    except OSError as error:
        found = folder.stat()
        owner = f"owned by uid {found.st_uid}, mode {found.st_mode & 0o7777:04o}"
        advice = "Choose another --runs, or change its owner"
        if machine.in_container:
            advice = "Set CAI_UID and CAI_GID to its owner"
        return Check("fail", "write", f"uid {machine.uid} cannot write {folder} ({owner}): {error.strerror}. {advice}.")
    return Check("ok", "write", f"uid {machine.uid} can write {folder}")


def check_tmp(folder: Path) -> Check:
    """Run a program from the temporary folder, as compiled GPU kernels are loaded from there."""
    program = folder / f"doctor-{os.getpid()}"
    try:
        program.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
        program.chmod(0o700)
        subprocess.run([program], check=True, timeout=10)
    except (OSError, subprocess.SubprocessError) as error:
        reason = f"programs do not run from {folder} ({error}), so GPU kernels cannot load"
        return Check("fail", "tmp", f"{reason}. Mount it writable and with exec, or set TMPDIR.")
    finally:
        program.unlink(missing_ok=True)
    return Check("ok", "tmp", f"programs run from {folder}")


def _existing(path: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(folder for folder in [path, *path.resolve().parents] if folder.exists())
