"""Resident memory of this process, from /proc."""

from __future__ import annotations

import re
from pathlib import Path


def rss_mib() -> float:
    """Memory in use now, in MiB."""
    return _field("VmRSS")


def peak_rss_mib() -> float:
    """Most memory in use so far, in MiB."""
    return _field("VmHWM")


def _field(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found
    return int(found[1]) / 1024
