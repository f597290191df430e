"""The chain of a stage's checkpoints: each names the one it went on from, by hash, back to the start.

    chain.jsonl: {"step": 8, "sha256": ..., "previous": ..., "adapter_sha256": ..., "files_sha256": ..., "tokens": ...}

`sha256` is the hash of a checkpoint's manifest.json, which holds the hash of every file and of the checkpoint before it
(a Merkle chain): one changed bit anywhere in the past changes every later hash. The file is only ever added to. After a
resume from an older checkpoint the links past it stay in the file and are marked as superseded: no path from the last
link leads to them.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from jobs.common.errors import DataError
from jobs.common.jsonl import read_json, sha256_file, sha256_json, write_atomic

CHAIN = "chain.jsonl"
MANIFEST = "manifest.json"
ADAPTER = "adapter_model.safetensors"

Link = dict[str, Any]


def link_of(checkpoint: Path) -> Link:
    """The link that a sealed checkpoint's manifest stands for.

    Raises:
        DataError: the manifest is damaged.
    """
    manifest = read_json(checkpoint / MANIFEST)
    return {
        "step": manifest["step"],
        "sha256": sha256_file(checkpoint / MANIFEST),
        "previous": manifest["previous"],
        "adapter_sha256": manifest["files"].get(ADAPTER),
        "files_sha256": sha256_json(manifest["files"]),
        "tokens": manifest["tokens"],
    }


def read_links(stage: Path) -> list[Link]:
    """Every link of a stage's folder, oldest first; none where it has no checkpoint yet.

    Raises:
        DataError: the file is damaged.
    """
    path = stage / CHAIN
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_bytes().splitlines()]
    except ValueError as error:
        raise DataError(f"{path} is damaged: not JSON lines ({error}). Run: cai {stage.name} --redo") from error


def add_link(stage: Path, link: Link) -> None:
    """Add one link, durably; the file is whole at every moment."""
    lines = [json.dumps(one, sort_keys=True) + "\n" for one in (*read_links(stage), link)]
    write_atomic(stage / CHAIN, "".join(lines).encode())


def marked(links: list[Link]) -> list[Link]:
    """The links, each with `superseded`: False on the way from the last link back to the start."""
    wanted = links[-1]["sha256"] if links else None
    found = []
    for link in reversed(links):
        on_path = wanted is not None and link["sha256"] == wanted
        if on_path:
            wanted = link["previous"]
        found.append(link | {"superseded": not on_path})
    return found[::-1]


def chain_fault(links: list[Link]) -> str | None:
    """What is wrong with a chain, in one line; None where it leads from the last link to the start."""
    path = [link for link in marked(links) if not link["superseded"]]
    if path and path[0]["previous"] is not None:
        return f"no link has the hash {path[0]['previous'][:12]} that step {path[0]['step']} went on from"
    for before, after in pairwise(path):
        if before["step"] >= after["step"] or before["tokens"] > after["tokens"]:
            return f"step {after['step']} ({after['tokens']} tokens) follows step {before['step']} ({before['tokens']})"
    return None
