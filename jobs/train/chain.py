"""The chain of a stage's checkpoints: each names the one it went on from, by hash, back to the start.

    chain.jsonl: {"step": 8, "sha256": ..., "previous": ..., "adapter_sha256": ..., "files_sha256": ..., "tokens": ...}

`sha256` is the hash of a checkpoint's manifest.json, which holds the hash of every file and of the checkpoint before it
(a Merkle chain): one changed bit anywhere in the past changes every later hash. The file is only ever added to. After a
resume from an older checkpoint the links past it stay in the file and are marked as superseded: no path from the last
link leads to them.

No checkpoint is trusted for the chain's sake: each is checked against the hashes in its own manifest. So a damaged
chain stops no training. It is named and kept aside, the links that can still be read go on, and the loss stays to be
seen: the chain leads back to it and no further, in the manifest too, and `cai verify` says from which step on.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from jobs.common.console import say
from jobs.common.errors import DataError
from jobs.common.jsonl import read_json, sha256_file, sha256_json, write_atomic

CHAIN = "chain.jsonl"
MANIFEST = "manifest.json"
ADAPTER = "adapter_model.safetensors"

Link = dict[str, Any]

FIELDS: dict[str, type | tuple[type, ...]] = {
    "step": int,
    "sha256": str,
    "previous": (str, type(None)),
    "adapter_sha256": (str, type(None)),
    "files_sha256": str,
    "tokens": int,
}
"""What a link consists of."""


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

    A last line without its end was being written when the machine went down, and is left out.

    Raises:
        DataError: another line is no link; names it.
    """
    links, fault = _readable(stage)
    if fault:
        raise DataError(f"{stage / CHAIN} is damaged: {fault}.")
    return links


def mend_chain(stage: Path) -> None:
    """While a stage trains: a damaged chain is named and copied aside, and the links that can be read stay."""
    links, fault = _readable(stage)
    if fault is None:
        return
    path, number = stage / CHAIN, 1
    while (aside := stage / f"damaged-{number}-{CHAIN}").exists():
        number += 1
    write_atomic(aside, path.read_bytes())
    _write(stage, links)
    say(
        f"{path} is damaged ({fault}); kept as {aside.name}. Checkpoints have hashes of their own and are used as "
        f"before; the chain goes on with the {len(links)} links that can be read"
    )


def add_link(stage: Path, link: Link) -> None:
    """Add one link, durably; the file is whole at every moment."""
    _write(stage, [*read_links(stage), link])


def restore_link(stage: Path, link: Link) -> None:
    """Put back the link of a checkpoint that is still there: before the one that went on from it, else at the end."""
    links = read_links(stage)
    at = next((i for i, one in enumerate(links) if one["previous"] == link["sha256"]), len(links))
    _write(stage, [*links[:at], link, *links[at:]])


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


def loss(links: list[Link]) -> str | None:
    """Where a chain ends before it reaches the start, in words; None where it does not."""
    path = _path(links)
    if path and path[0]["previous"] is not None:
        return f"no link has the hash {path[0]['previous'][:12]} that step {path[0]['step']} went on from"
    return None


def disorder(links: list[Link]) -> str | None:
    """Two links on the way to the start that no training can have left in this order; None where there are none."""
    for before, after in pairwise(_path(links)):
        if before["step"] >= after["step"] or before["tokens"] > after["tokens"]:
            return f"step {after['step']} ({after['tokens']} tokens) follows step {before['step']} ({before['tokens']})"
    return None


def _path(links: list[Link]) -> list[Link]:
    return [link for link in marked(links) if not link["superseded"]]


def _readable(stage: Path) -> tuple[list[Link], str | None]:
    """The links of a chain, and what is wrong with the first line that is none."""
    path = stage / CHAIN
    if not path.exists():
        return [], None
    links: list[Link] = []
    fault = None
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        link = _parsed(line)
        if link is None:
            fault = fault or f"line {number} is no link: {line[:40]!r}"
        else:
            links.append(link)
    return links, fault


def _parsed(line: bytes) -> Link | None:
    try:
        link = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(link, dict) and link.keys() == FIELDS.keys()
    return link if whole and all(isinstance(link[name], kind) for name, kind in FIELDS.items()) else None


def _write(stage: Path, links: list[Link]) -> None:
    write_atomic(stage / CHAIN, "".join(json.dumps(one, sort_keys=True) + "\n" for one in links).encode())
