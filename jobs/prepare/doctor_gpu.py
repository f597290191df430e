"""Doctor's look at the GPU: which driver, whether the locked CUDA wheels run on it, whether CUDA answers here."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable

from jobs.prepare.doctor_machine import Check, Machine

OLDEST_DRIVER = 525
"""First branch that runs CUDA 12 wheels, by CUDA's minor-version compatibility (docs/decisions/002)."""
FULL_DRIVER = 570
"""First branch that knows CUDA 12.8 itself."""
OLDEST_CAPABILITY = 8
"""First compute capability with bf16 in hardware (Ampere); training refuses older ones."""


def check_gpu(machine: Machine, *, real_model: bool, count_devices: Callable[[], int | str] | None = None) -> Check:
    """Name the driver and say whether training can use it.

    Args:
        machine: where to look.
        real_model: the student is more than a 135M model, for which a CPU is too slow.
        count_devices: the number of CUDA devices, or why there is no answer; default: ask the CUDA driver.
    """
    driver = find_driver(machine)
    if driver is None:
        slow = " A model of this recipe's size takes days there." if real_model else ""
        return Check("warn", "gpu", f"no NVIDIA driver found: sft, dpo and respond use the CPU.{slow}")
    major = int(driver.split(".")[0])
    if major < OLDEST_DRIVER:
        advice = f"Install {OLDEST_DRIVER} or later, best {FULL_DRIVER}"
        return Check("fail", "gpu", f"driver {driver} is too old for CUDA 12. {advice}.")
    found = (count_devices or cuda_devices)()
    if isinstance(found, str) or found == 0:
        return _no_device(machine, driver, found)
    if old := _too_old(machine):
        return Check("fail", "gpu", f"{old}; training needs bf16: 8.0 (Ampere) or later. sft and dpo would refuse it.")
    note = "" if major >= FULL_DRIVER else f" (older than {FULL_DRIVER}: runs CUDA 12.8 by minor-version compatibility)"
    return Check("ok", "gpu", f"driver {driver}, {found} GPU{'s' if found > 1 else ''}{note}")


def find_driver(machine: Machine) -> str | None:
    """The version of the NVIDIA driver, from nvidia-smi or the kernel; None where there is none."""
    program = shutil.which("nvidia-smi", path=machine.environment.get("PATH"))
    if version := re.match(r"\d+\.[\d.]+", _asked(program, "driver_version")):
        return version.group()
    kernel = machine.root / "proc/driver/nvidia/version"
    if not kernel.exists():
        return None
    version = re.search(r"\b(\d{3}\.[\d.]+)\b", kernel.read_text(encoding="utf-8", errors="replace"))
    return version.group(1) if version else None


def _too_old(machine: Machine) -> str:
    """The first GPU and its compute capability where no GPU here has bf16; empty where one has, or none is told."""
    program = shutil.which("nvidia-smi", path=machine.environment.get("PATH"))
    found = re.findall(r"^(.+), (\d+)\.(\d+)$", _asked(program, "name,compute_cap"), re.MULTILINE)
    if not found or any(int(major) >= OLDEST_CAPABILITY for _name, major, _minor in found):
        return ""
    name, major, minor = found[0]
    return f"{name} has compute capability {major}.{minor}"


def _asked(program: str | None, what: str) -> str:
    """What nvidia-smi answers, a line for each GPU; empty where it does not."""
    if program is None:
        return ""
    command = [program, f"--query-gpu={what}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def cuda_devices() -> int | str:
    """Ask the CUDA driver itself how many devices it gives this process, or say why it gives no answer."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "libcuda.so.1 is missing"
    if (code := library.cuInit(0)) != 0:
        return f"cuInit answered {code}"
    count = ctypes.c_int()
    code = library.cuDeviceGetCount(ctypes.byref(count))
    return count.value if code == 0 else f"cuDeviceGetCount answered {code}"


def _no_device(machine: Machine, driver: str, found: int | str) -> Check:
    reason = found if isinstance(found, str) else "it shows no device"
    if machine.in_container and machine.environment.get("NVIDIA_VISIBLE_DEVICES", "void") in {"", "void", "none"}:
        text = f"the machine has driver {driver}, but this container was given no GPU: trainers use the CPU."
        return Check("warn", "gpu", f"{text} Leave compose.cpu.yaml out, or run the container with a GPU.")
    advice = "After a driver update reboot; else look at: nvidia-smi, dmesg."
    return Check("fail", "gpu", f"driver {driver} is there, but CUDA does not work: {reason}. {advice}")
