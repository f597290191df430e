"""Peers from PyPI, each in a venv of its own, on the same server in the same run: `benchmarks.generation --peers`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.children import ROOT, Child, ChildError, run_command
from benchmarks.measures import Bench, Case, Measure
from benchmarks.questions import question
from jobs.common.generate_settings import TeacherSettings
from tests.fakes.load_server import LoadServer

VENVS = ROOT / "benchmarks" / ".venvs"
TIMEOUT_S = 60.0
"""A peer gets no more for one case, from process start to end."""
WARM_UP = 4
"""Requests of a first, unmeasured run: it writes bytecode and model caches."""


@dataclass(frozen=True)
class Peer:
    """One library at one setting."""

    name: str
    """For the table, with the setting."""
    driver: str
    """File in `benchmarks/peers`, and with a dash the venv's folder."""
    packages: tuple[str, ...]
    """For pip, pinned."""
    batch: int | None = None
    """Rows in a batch, where the library has batches; None = all rows in one."""

    @property
    def python(self) -> Path:
        """The venv's Python."""
        return VENVS / self.driver.replace("_", "-") / "bin" / "python"


DISTILABEL = ("distilabel[openai]==1.5.3", "requests==2.34.2")  # it imports requests and does not require it
PEERS = (
    Peer("curator 0.1.31", "curator", ("bespokelabs-curator==0.1.31",)),
    Peer("Data Designer 0.9.7", "data_designer", ("data-designer==0.9.7",)),
    Peer("distilabel 1.5.3, batches of 50 (its default)", "distilabel", DISTILABEL, batch=50),
    Peer("distilabel 1.5.3, one batch", "distilabel", DISTILABEL),
)


def install(peer: Peer) -> None:
    """Make the peer's venv where it is missing; several minutes and about 1 GB each.

    Raises:
        ChildError: pip failed.
    """
    if peer.python.exists():
        return
    folder = peer.python.parent.parent
    made = subprocess.run([sys.executable, "-m", "venv", str(folder)], check=False)
    pip = [str(peer.python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *peer.packages]
    if made.returncode or subprocess.run(["nice", "-n", "10", *pip], check=False).returncode:
        raise ChildError(f"{folder}: pip install {' '.join(peer.packages)} failed; remove the folder and try again")


def run_peer(peer: Peer, case: Case, bench: Bench) -> Measure | str:
    """Run one case with one peer; a text says why it gave no figure."""
    assert case.behaviour is not None
    with LoadServer(case.behaviour) as server:
        try:
            child = _run(peer, server.url, bench.folder, case.requests)
        except ChildError as error:
            kept = server.stats().delivered
            return f"{error} ({kept} of {case.requests} replies had been delivered)"
        stats = server.stats()
    request_s = stats.last_reply_at - stats.first_at
    return Measure(
        value=request_s,
        request_s=request_s,
        holds=child.said["rows"] == case.requests,
        wasted=stats.limited,
        rows=child.said["rows"],
        start_s=stats.first_at - child.begun_at,
        write_s=child.ended_at - stats.last_reply_at,
    )


def warm_up(peer: Peer, folder: Path) -> None:
    """Run once without measuring; a peer that cannot run says so in its first case."""
    with LoadServer() as server:
        try:
            _run(peer, server.url, folder, WARM_UP)
        except ChildError as error:
            print(f"{peer.name}: {error}", file=sys.stderr)


def _run(peer: Peer, url: str, folder: Path, requests: int) -> Child:
    folder.mkdir(parents=True, exist_ok=True)
    texts = folder / "texts.json"
    texts.write_text(json.dumps([question(number) for number in range(requests)]), encoding="utf-8")
    lanes = TeacherSettings().concurrency
    spec = {
        "url": url,
        "texts": str(texts),
        "folder": str(folder / "out"),
        "lanes": lanes,
        "batch": peer.batch or requests,
    }
    driver = ROOT / "benchmarks" / "peers" / f"run_{peer.driver}.py"
    environment = {name: value for name, value in os.environ.items() if name not in {"OPENAI_BASE_URL", "PYTHONPATH"}}
    return run_command([str(peer.python), str(driver), json.dumps(spec)], TIMEOUT_S, environment)
