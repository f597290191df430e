"""Hub datasets against a real server on the loopback: the routes huggingface_hub asks for."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

import pytest

from jobs.audit.hub_source import hub_files
from jobs.common.errors import ConfigError
from jobs.common.recipe import PROJECT

COMMIT, CONVERTED = "a" * 40, "b" * 40
PROGRAM = """
import json, sys
from dataclasses import asdict
from jobs.audit.several import read_sources
from jobs.common.console import say
from jobs.common.errors import JobError
try:
    data = read_sources(sys.argv[1:], None).data
except JobError as error:
    say(f"Error: {error}")
    sys.exit(error.exit_code)
print(json.dumps(asdict(data)))
"""
PAIR = json.dumps({"prompt": "Q?", "chosen": "Yes.", "rejected": "No."}).encode() + b"\n"


@dataclass
class FakeHub:
    """One dataset repository, by revision."""

    revisions: dict[str, dict[str, bytes]]
    gated: bool = False
    url: str = ""
    asked: list[str] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[FakeHub]

    def do_HEAD(self) -> None:
        self._answer(send_body=False)

    def do_GET(self) -> None:
        self._answer(send_body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, *, send_body: bool) -> None:
        path = unquote(self.path.split("?")[0])
        self.hub.asked.append(path)
        status, body, headers = self._found(path)
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(key, value)
        self.end_headers()
        if send_body:
            self.wfile.write(body)

    def _found(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        commits = {"main": COMMIT, "refs/convert/parquet": CONVERTED, COMMIT: COMMIT, CONVERTED: CONVERTED}
        if self.hub.gated:
            return 403, b"", {"X-Error-Code": "GatedRepo"}
        if path.startswith("/api/datasets/org/data"):
            commit = commits.get(path.partition("/revision/")[2] or "main", "")
            if commit not in self.hub.revisions:
                return 404, b"", {"X-Error-Code": "RevisionNotFound"}
            siblings = [{"rfilename": name} for name in self.hub.revisions[commit]]
            about = {"id": "org/data", "sha": commit, "siblings": siblings, "cardData": {"license": "mit"}}
            return 200, json.dumps(about).encode(), {}
        commit, _, name = path.removeprefix("/datasets/org/data/resolve/").partition("/")
        if path.startswith("/datasets/org/data/resolve/") and name in self.hub.revisions.get(commit, {}):
            body = self.hub.revisions[commit][name]
            return 200, body, {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(body).hexdigest()}"'}
        return 404, b"", {"X-Error-Code": "RepoNotFound"}


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    fake = FakeHub({COMMIT: {"README.md": b"# Data", "data/train.jsonl": PAIR, "data/test.jsonl": PAIR * 2}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": fake}))
    fake.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield fake
    server.shutdown()
    server.server_close()


def read(url: str, cache: Path, source: str) -> subprocess.CompletedProcess[str]:
    """huggingface_hub reads its endpoint once, on import, so it needs its own process."""
    variables = os.environ | {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(cache), "HF_TOKEN": "hf_secret"}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, source], cwd=PROJECT, env=variables, capture_output=True, text=True, check=False
    )


def read_data(hub: FakeHub, cache: Path, source: str) -> dict[str, Any]:
    done = read(hub.url, cache, source)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_dataset_is_read_at_the_commit_its_name_stands_for(hub: FakeHub, tmp_path: Path) -> None:
    data = read_data(hub, tmp_path, "hub:org/data")
    assert [pair["split"] for pair in data["pairs"]] == ["held_out", "held_out", "dpo"]
    assert data["datasheet"]["revision"] == COMMIT
    assert data["datasheet"]["licence"] == "mit"
    assert not any("README" in path for path in hub.asked if "resolve" in path)


def test_one_split_alone_is_asked_for(hub: FakeHub, tmp_path: Path) -> None:
    data = read_data(hub, tmp_path, f"hub:org/data@{COMMIT}:train")
    assert [pair["split"] for pair in data["pairs"]] == ["dpo"]
    assert not any("test" in path for path in hub.asked)


def test_a_dataset_in_another_format_is_read_as_the_parquet_the_hub_made_of_it(hub: FakeHub, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    file = tmp_path / "made.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["Q?"], "chosen": ["Yes."], "rejected": ["No."]}), file)
    hub.revisions = {COMMIT: {"rows.csv": b"x"}, CONVERTED: {"default/test/0000.parquet": file.read_bytes()}}
    data = read_data(hub, tmp_path, "hub:org/data")
    assert [(pair["prompt"], pair["split"]) for pair in data["pairs"]] == [("Q?", "held_out")]
    assert data["datasheet"]["revision"] == CONVERTED


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        ("hub:org/none", 78, "hub:org/none does not exist on the hub"),
        ("hub:org/data@nowhere", 78, "does not exist on the hub"),
        ("hub:org/data:validation", 65, "no .parquet or .jsonl file of a split 'validation' in that dataset"),
    ],
)
def test_what_the_hub_does_not_have_is_named(hub: FakeHub, tmp_path: Path, source: str, code: int, said: str) -> None:
    done = read(hub.url, tmp_path, source)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_a_gated_dataset_says_what_to_do(hub: FakeHub, tmp_path: Path) -> None:
    hub.gated = True
    done = read(hub.url, tmp_path, "hub:org/data")
    assert done.returncode == 78, done.stderr
    assert "is gated. Accept its licence" in done.stderr
    assert "hf_secret" not in done.stderr


def test_a_hub_that_does_not_answer_is_exit_69(tmp_path: Path) -> None:
    done = read("http://127.0.0.1:9", tmp_path, "hub:org/data")
    assert done.returncode == 69, done.stderr
    assert "the hub does not answer" in done.stderr


@pytest.mark.parametrize("source", ["hub:", "hub:data", "hub:org/data@", "hub:../etc/passwd", "hub:org/data:a:b"])
def test_a_name_that_is_none_is_told_before_anything_is_asked(source: str) -> None:
    with pytest.raises(ConfigError, match=r"Write hub:owner/name"):
        hub_files(source)
