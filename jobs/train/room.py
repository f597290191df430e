"""How much memory a process may use where it runs: a GPU's, or what machine and container leave of the main memory."""

from __future__ import annotations

from pathlib import Path

from jobs.common.fitting import CONTEXT_BYTES

MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def memory_bytes(device: str) -> float:
    """What this process may use of the device's memory, in bytes: the whole of a GPU that nobody shares.

    Args:
        device: `cuda` or `cpu`.
    """
    if device == "cuda":
        import torch

        free, whole = torch.cuda.mem_get_info()
        return float(min(free + CONTEXT_BYTES, whole * torch.cuda.get_per_process_memory_fraction()))
    free_kib = next(line.split()[1] for line in MEMINFO.read_text().splitlines() if line.startswith("MemAvailable"))
    limits = [int(free_kib) * 1024]
    limit = CGROUP / "memory.max"
    if limit.exists() and (most := limit.read_text().strip()) != "max":
        limits.append(int(most) - int((CGROUP / "memory.current").read_text()) + _file_cache())
    return float(min(limits))


def _file_cache() -> int:
    """Bytes of files read lately: they count as used, but the kernel gives them up first."""
    stat = CGROUP / "memory.stat"
    lines = stat.read_text().splitlines() if stat.exists() else []
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
