"""What the CPU of this machine can do. Needs no torch."""

from __future__ import annotations

import os
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""What the kernel calls bf16 matrix products in hardware: x86 (AVX512-BF16, AMX) and Arm."""


def native_bf16(cpu_info: Path = CPU_INFO) -> bool:
    """Whether this CPU multiplies bf16 in hardware; without, bf16 is several times slower than fp32."""
    if not cpu_info.exists():
        return False
    lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines()
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return not BF16_FLAGS.isdisjoint(flags.partition(":")[2].split())


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
