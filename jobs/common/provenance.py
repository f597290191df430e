"""What produced a file: source tree, lock, package versions, machine. Goes into every manifest."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from functools import cache
from typing import Any, Literal

from jobs.common.jsonl import sha256_file
from jobs.common.recipe import PROJECT

Lock = Literal["cpu", "cuda"]

PACKAGES = {
    "cpu": ("datasets", "huggingface-hub", "openai", "pydantic", "xllamacpp"),
    "cuda": ("accelerate", "bitsandbytes", "datasets", "gguf", "peft", "torch", "transformers", "trl"),
}
"""Packages named in a manifest; the lock's hash covers the rest."""


@cache
def lock_sha256(lock: Lock) -> str:
    """Hash of the requirements lock behind an image; the same natively and in the image."""
    return sha256_file(PROJECT / "requirements" / f"{lock}.lock")


@cache
def source_tree_sha256() -> str:
    """Hash over the names and bytes of every Python file of the package."""
    digest = hashlib.sha256()
    for path in sorted((PROJECT / "jobs").rglob("*.py")):
        digest.update(f"{path.relative_to(PROJECT).as_posix()}\0{sha256_file(path)}\n".encode())
    return digest.hexdigest()


def git_commit() -> str | None:
    """The commit baked into the image (`CAI_GIT_COMMIT`) or the checkout's, `+changes` when files differ from it."""
    if baked := os.environ.get("CAI_GIT_COMMIT"):
        return baked
    if not (PROJECT / ".git").exists():
        return None
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("+changes" if _git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def provenance(lock: Lock) -> dict[str, Any]:
    """Everything known about the code and machine that run now."""
    return {
        "source_tree_sha256": source_tree_sha256(),
        "lock": f"requirements/{lock}.lock",
        "lock_sha256": lock_sha256(lock),
        "git_commit": git_commit(),
        "image_id": os.environ.get("CAI_IMAGE_ID") or None,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES[lock]},
    }


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
