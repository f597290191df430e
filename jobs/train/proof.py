"""What `cai verify` compares: hashes of files and of the checkpoints' chain, and the figures of steps trained twice."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.common.errors import DataError
from jobs.common.jsonl import read_json, sha256_file
from jobs.train.chain import ADAPTER, Link, disorder, loss, marked, read_links
from jobs.train.checkpoints import checkpoint_fault, kept_checkpoints

STATE = (ADAPTER, "optimizer.pt", "scheduler.pt", "rng_state.pth")
"""Files of the last checkpoint that are the same bytes when the same steps led to it."""
STEP_FIGURES = ("loss", "grad_norm", "learning_rate", "num_tokens", "rows")
FIGURES = ("held_out", "train_loss", "steps")
"""Beginnings of the names of a stage's figures that do not depend on the clock."""


@dataclass(frozen=True)
class Check:
    """One thing that was compared."""

    what: str
    recorded: str
    found: str

    @property
    def equal(self) -> bool:
        """Whether what was found is what was recorded."""
        return self.recorded == self.found


def table(checks: list[Check]) -> str:
    """The checks for people, a line each."""
    width = max(len(check.what) for check in checks)
    return "\n".join(
        f"  {'equal  ' if check.equal else 'DIFFERS'}  {check.what:<{width}}  {check.recorded}"
        + ("" if check.equal else f"  found: {check.found}")
        for check in checks
    )


def file_checks(stage: Path, manifest: dict[str, Any], kept: list[Path]) -> list[Check]:
    """Every output, input and kept checkpoint against the manifest and the chain; `kept` is newest first."""
    links, damage = _links(stage)
    on_path = {link["sha256"]: link for link in links if not link["superseded"]}
    outputs = {f"{stage.name}/{name}": digest for name, digest in manifest["outputs"].items()}
    adapter, known = manifest["outputs"].get(f"adapter/{ADAPTER}"), manifest["measures"].get("checkpoints") or []
    last = links[-1] if links else {}
    return [
        _files("outputs", stage.parent, outputs),
        _files("inputs", stage.parent, manifest["inputs"]),
        *(Check(path.name, "whole", checkpoint_fault(path) or "whole") for path in kept),
        Check("chain", _reach(known), damage or disorder(links) or _reach(links)),
        Check("chain in manifest", _sum(known), _sum(links)),
        Check("kept in chain", "all", _strangers(kept, set(on_path)) or "all"),
        Check("adapter", _short(adapter), _short(last.get("adapter_sha256"))),
    ]


def replay_checks(stage: Path, again: Path, after: int) -> list[Check]:
    """The steps after `after` as recorded in `stage` and as trained again in `again`."""
    recorded, found = (read_json(folder / "manifest.json") for folder in (stage, again))
    lines = [_steps(folder, after) for folder in (stage, again)]
    steps = [Check(f"step {step}", _figures(line), _figures(lines[1].get(step, {}))) for step, line in lines[0].items()]
    states = [read_json(kept_checkpoints(folder)[0] / "manifest.json")["files"] for folder in (stage, again)]
    return [
        *steps,
        Check("number of steps", str(len(lines[0])), str(len(lines[1]))),
        *(
            Check(f"last {name}", _short(states[0][name]), _short(states[1].get(name)))
            for name in STATE
            if name in states[0]
        ),
        _named("tokens", recorded["tokens"], found["tokens"]),
        _named("figures", *(_lasting(one["measures"]) for one in (recorded, found))),
        Check("final adapter", *(_short(one["outputs"].get(f"adapter/{ADAPTER}")) for one in (recorded, found))),
    ]


def _files(what: str, folder: Path, digests: dict[str, str]) -> Check:
    whole = f"{len(digests)} files"
    for name, digest in digests.items():
        path = folder / name
        if not path.exists():
            return Check(what, whole, f"{name} is missing")
        if sha256_file(path) != digest:
            return Check(what, whole, f"{name} changed")
    return Check(what, whole, whole)


def _strangers(kept: list[Path], known: set[str]) -> str:
    names = [path.name for path in kept if sha256_file(path / "manifest.json") not in known]
    return f"not in it: {', '.join(names)}" if names else ""


def _steps(folder: Path, after: int) -> dict[int, dict[str, Any]]:
    lines = map(json.loads, (folder / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return {line["step"]: line for line in lines if line["step"] > after and "loss" in line}


def _figures(line: dict[str, Any]) -> str:
    return ", ".join(f"{name} {line[name]}" for name in STEP_FIGURES if name in line) or "nothing"


def _lasting(measures: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in measures.items() if name.startswith(FIGURES)}


def _named(what: str, recorded: dict[str, Any], found: dict[str, Any]) -> Check:
    for name in sorted(recorded.keys() | found.keys()):
        if recorded.get(name) != found.get(name):
            return Check(f"{what}: {name}", str(recorded.get(name)), str(found.get(name)))
    return Check(what, f"{len(recorded)} values", f"{len(found)} values")


def _links(stage: Path) -> tuple[list[Link], str]:
    """The chain, or why it cannot be read."""
    try:
        return marked(read_links(stage)), ""
    except DataError as error:
        return [], str(error)


def _reach(links: list[Link]) -> str:
    """How far back a chain leads: to the start, or to where its file was damaged while the stage trained."""
    count = sum(not link["superseded"] for link in marked(links))
    lost = loss(links)
    return f"{count} links" + (f", not to the start: {lost}" if lost else "")


def _sum(links: list[Link]) -> str:
    if not links:
        return "no links"
    return f"{len(links)} links, the last {_short(links[-1]['sha256'])}"


def _short(digest: str | None) -> str:
    return digest[:16] if digest else "none"
