"""Whether torch.compile can work on this machine; whether it pays is jobs/common/speed.py's to say."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path


def can_compile() -> bool:
    """Whether torch.compile can work here: it calls Triton, a C compiler and Python's headers."""
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    return bool(find_spec("triton") and compiler and headers and sys.platform == "linux")
