"""The embedded model's weights, placed once in RUNS/models."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from secrets import token_hex

from jobs.common.embedded_gguf import find_embedded_gguf
from jobs.common.jsonl import sha256_file, sync_folder

EMBEDDED_NAME = "smollm2-135m-instruct"
"""Name of the embedded model in rows and manifests."""


def place_embedded_gguf(models: Path) -> Path:
    """Copy the GGUF to `models` under a name that holds its hash; a copy that is there already is kept."""
    source = find_embedded_gguf()
    target = models / f"{EMBEDDED_NAME}-{sha256_file(source)[:12]}.gguf"
    if target.exists():
        return target
    models.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{token_hex(8)}.tmp")  # two containers share process ids
    try:
        shutil.copyfile(source, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
        sync_folder(models)
    finally:
        temporary.unlink(missing_ok=True)
    return target
