"""Mix-ins from a dataset server on the loopback: the routes `datasets` asks."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

import pyarrow
import pyarrow.parquet
import pytest

from jobs.common.fetched import load_fetched, resolve
from jobs.common.recipe import load_recipe
from jobs.common.stage import RunContext
from tests.prepare.test_fetch import fetch_process

COMMIT = "a" * 40
CARD = """\
---
configs:
- config_name: default
  data_files:
  - {split: train_sft, path: data/train_sft-*}
  - {split: train_prefs, path: data/train_prefs-*}
  - {split: test_sft, path: data/test_sft-*}
---
"""


@dataclass
class FakeDatasets:
    """One dataset repository."""

    files: dict[str, bytes]
    url: str = ""
    asked: list[str] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[FakeDatasets]

    def do_HEAD(self) -> None:
        self._answer({}, send_body=False)

    def do_GET(self) -> None:
        self._answer({}, send_body=True)

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer(json.loads(sent or b"{}"), send_body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, sent: Any, *, send_body: bool) -> None:
        path = unquote(self.path.split("?")[0])
        self.hub.asked.append(f"{self.command} {path}")
        status, body, headers = self._found(path, sent)
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(key, value)
        self.end_headers()
        if send_body:
            self.wfile.write(body)

    def _found(self, path: str, sent: Any) -> tuple[int, bytes, dict[str, str]]:
        api, files = "/api/datasets/org/mix", self.hub.files
        if path.startswith(f"{api}/tree/"):
            below = path.partition(COMMIT)[2].strip("/")
            root = [_entry("README.md", files["README.md"]), {"type": "directory", "path": "data", "oid": "0" * 40}]
            inside = [_entry(name, data) for name, data in files.items() if name.startswith("data/")]
            return 200, json.dumps(inside if below == "data" else root).encode(), {}
        if path.startswith(f"{api}/paths-info/"):
            found = [_entry(name, files[name]) for name in sent["paths"] if name in files]
            return 200, json.dumps(found).encode(), {}
        if path.startswith(api):
            about = {"id": "org/mix", "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
            return 200, json.dumps(about).encode(), {}
        name = path.removeprefix(f"/datasets/org/mix/resolve/{COMMIT}/")
        if name in files:
            etag = hashlib.sha1(files[name]).hexdigest()
            return 200, files[name], {"X-Repo-Commit": COMMIT, "ETag": f'"{etag}"'}
        known = path.startswith("/datasets/org/mix/")
        return 404, b"", {"X-Error-Code": "EntryNotFound" if known else "RepoNotFound", "X-Repo-Commit": COMMIT}


def _entry(name: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


@pytest.fixture
def hub() -> Iterator[FakeDatasets]:
    turns = [{"content": "Q", "role": "user"}, {"content": "A", "role": "assistant"}]
    fake = FakeDatasets(
        {
            "README.md": CARD.encode(),
            "data/train_sft-00000-of-00002.parquet": parquet([{"prompt": "Q", "messages": turns}]),
            "data/train_sft-00001-of-00002.parquet": parquet([{"prompt": "Q", "messages": turns}] * 2),
            "data/train_prefs-00000-of-00001.parquet": parquet([{"prompt": "Q", "chosen": turns, "rejected": turns}]),
            "data/test_sft-00000-of-00001.parquet": parquet([{"prompt": "Q", "messages": turns}]),
        }
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": fake}))
    fake.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield fake
    server.shutdown()
    server.server_close()


def test_the_named_splits_come_as_one_file_each_and_no_other_split_is_downloaded(
    hub: FakeDatasets, tmp_path: Path
) -> None:
    changes = (
        "sft.mix_in=[{dataset: org/mix, split: train_sft, weight: 1}]",
        "dpo.mix_in=[{dataset: org/mix, split: train_prefs, weight: 1}]",
    )
    sets = tuple(part for change in changes for part in ("--set", change))
    done = fetch_process(hub.url, tmp_path, "embedded", more=sets)
    assert done.returncode == 0, done.stderr
    mixed = load_fetched(RunContext(recipe=load_recipe("demo", changes), run="r", runs=tmp_path)).mix_in
    rows = {key: pyarrow.parquet.read_table(resolve(tmp_path, it.path)).num_rows for key, it in mixed.items()}
    assert rows == {"org/mix@main/train_sft": 3, "org/mix@main/train_prefs": 1}
    assert not any("test_sft" in path for path in hub.asked if "/resolve/" in path)


def test_a_split_the_dataset_has_not_is_named_with_those_it_has(hub: FakeDatasets, tmp_path: Path) -> None:
    change = "sft.mix_in=[{dataset: org/mix, split: train, weight: 1}]"
    done = fetch_process(hub.url, tmp_path, "embedded", more=("--set", change))
    assert done.returncode == 78, done.stderr
    assert "org/mix at revision 'main': no split 'train'; there are train_sft, train_prefs, test_sft" in done.stderr
