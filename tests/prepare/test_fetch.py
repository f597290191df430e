"""fetch against a real hub server on the loopback: the three routes huggingface_hub asks."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from jobs.common.embedded_gguf import find_embedded_gguf
from jobs.common.errors import ConfigError, DataError
from jobs.common.fetched import load_fetched, resolve
from jobs.common.recipe import PROJECT, load_recipe
from jobs.common.stage import RunContext
from jobs.prepare import fetch

COMMIT = "a" * 40

TURNS = [{"id": 1, "content": "<|im_start|>"}, {"id": 2, "content": "<|im_end|>"}]
TOKENIZER: dict[str, Any] = {"added_tokens": TURNS, "model": {"type": "BPE", "vocab": {"a": 0}}}


@dataclass
class FakeHub:
    """One model repository; remembers what was asked and with which token."""

    files: dict[str, bytes]
    gated: bool = False
    url: str = ""
    history: list[tuple[str, str, str | None]] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[FakeHub]

    def do_HEAD(self) -> None:
        self._answer(send_body=False)

    def do_GET(self) -> None:
        self._answer(send_body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, *, send_body: bool) -> None:
        self.hub.history.append((self.command, self.path, self.headers.get("Authorization")))
        name = self.path.split(f"/resolve/{COMMIT}/")[-1].split("?")[0]
        headers: dict[str, str] = {"X-Repo-Commit": COMMIT}
        status, body = 404, b""
        if self.hub.gated:
            status, headers = 403, headers | {"X-Error-Code": "GatedRepo"}
        elif self.path.startswith("/api/models/org/tiny/tree/"):
            entries = [
                {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for path, data in self.hub.files.items()
            ]
            status, body = 200, json.dumps(entries).encode()
        elif self.path.startswith("/api/models/org/tiny"):
            siblings = [{"rfilename": path} for path in self.hub.files]
            status, body = 200, json.dumps({"id": "org/tiny", "sha": COMMIT, "siblings": siblings}).encode()
        elif name in self.hub.files:
            status, body = 200, self.hub.files[name]
            headers["ETag"] = f'"{hashlib.sha1(body).hexdigest()}"'
        else:
            headers["X-Error-Code"] = "RepoNotFound"
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(key, value)
        self.end_headers()
        if send_body:
            self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    fake = FakeHub(
        {
            "config.json": b"{}",
            "model.safetensors": b"weights",
            "pytorch_model.bin": b"pickle",
            "consolidated.safetensors": b"the same weights once more",
            "tokenizer.json": json.dumps(TOKENIZER).encode(),
        }
    )
    handler = type("Handler", (_Handler,), {"hub": fake})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    fake.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield fake
    server.shutdown()
    server.server_close()


def fetch_process(
    hub_url: str, runs: Path, model: str, more: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run fetch as people do; huggingface_hub reads its endpoint once, on import, so it needs its own process."""
    online = {"HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0", "HF_ENDPOINT": hub_url, "HF_HOME": str(runs / "hf")}
    variables = os.environ | online | environment
    arguments = ["fetch", "--runs", str(runs), "--run", "r", "--set", f"student.model={model}", *more]
    return subprocess.run(
        [sys.executable, "-m", "jobs", *arguments],
        cwd=PROJECT,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_hub_model_comes_as_safetensors_at_a_resolved_commit(hub: FakeHub, tmp_path: Path) -> None:
    done = fetch_process(hub.url, tmp_path, "org/tiny", HF_TOKEN="hf_secret_token")
    assert done.returncode == 0, done.stderr
    context = RunContext(recipe=load_recipe("demo", ["student.model=org/tiny"]), run="r", runs=tmp_path)
    student = load_fetched(context).student
    assert student.revision == COMMIT
    assert student.name == "tiny"
    folder = resolve(context.runs, student.path)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert student.sha256["model.safetensors"] == hashlib.sha256(b"weights").hexdigest()
    assert any(token == "Bearer hf_secret_token" for _, _, token in hub.history)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"hf_secret_token" not in written
    assert "hf_secret_token" not in done.stderr + done.stdout
    assert not any("pytorch_model.bin" in path for _, path, _ in hub.history), "pickle weights are never asked for"
    assert not any("consolidated" in path for _, path, _ in hub.history), "nor is a second copy of the weights"


def test_a_gated_model_says_what_to_do(hub: FakeHub, tmp_path: Path) -> None:
    hub.gated = True
    done = fetch_process(hub.url, tmp_path, "org/tiny")
    assert done.returncode == 78, done.stderr
    assert "org/tiny at revision 'main' is gated. Accept its licence" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_model_is_named(hub: FakeHub, tmp_path: Path) -> None:
    done = fetch_process(hub.url, tmp_path, "org/none")
    assert done.returncode == 78, done.stderr
    assert "org/none at revision 'main' does not exist on the hub" in done.stderr


def test_a_hub_that_does_not_answer_is_exit_69(tmp_path: Path) -> None:
    done = fetch_process("http://127.0.0.1:9", tmp_path, "org/tiny")
    assert done.returncode == 69, done.stderr
    assert "the hub does not answer" in done.stderr


def test_the_embedded_model_needs_no_network_and_is_placed_once(context: RunContext) -> None:
    fetch.run(context)
    fetched = load_fetched(context)
    assert fetched.student.kind == "gguf"
    assert fetched.student.path == fetched.teacher_gguf == fetched.initial_gguf
    placed = resolve(context.runs, fetched.student.path)
    assert placed.read_bytes() == find_embedded_gguf().read_bytes()
    before = placed.stat().st_mtime_ns
    fetch.run(RunContext(recipe=context.recipe, run="second", runs=context.runs))
    assert placed.stat().st_mtime_ns == before


def with_settings(context: RunContext, *changes: str) -> RunContext:
    return RunContext(recipe=load_recipe("demo", changes), run="demo", runs=context.runs)


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """A local student that fetch takes."""
    folder = tmp_path / "Tiny"
    folder.mkdir()
    (folder / "config.json").write_text('{"max_position_embeddings": 512}')
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    return folder


def test_a_local_student_is_used_where_it_lies(context: RunContext, student: Path) -> None:
    fetch.run(with_settings(context, f"student.model={student}"))
    found = load_fetched(context).student
    assert (found.path, found.name, found.revision) == (str(student), "tiny", None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", r"has no config\.json"),
        ("model.safetensors", r"has no \*\.safetensors"),
        ("tokenizer.json", r"has no tokenizer\.json"),
    ],
)
def test_a_student_without_one_of_its_files_is_refused(
    context: RunContext, student: Path, name: str, message: str
) -> None:
    (student / name).unlink()
    with pytest.raises(ConfigError, match=f"student.model: {student} {message}"):
        fetch.run(with_settings(context, f"student.model={student}"))
    assert not (context.folder / "fetch" / "manifest.json").exists()


@pytest.mark.parametrize(
    "text",
    ["", '{"model": {"vocab"', "[]", "{}", '{"model": {"vocab": 3}}', '{"model": {"vocab": {}}, "added_tokens": [1]}'],
    ids=["empty", "cut off", "list", "nothing in it", "no vocabulary", "no tokens"],
)
def test_a_damaged_tokenizer_is_refused_before_a_token_is_paid(context: RunContext, student: Path, text: str) -> None:
    (student / "tokenizer.json").write_text(text)
    with pytest.raises(DataError, match=r"Tiny/tokenizer\.json is damaged: .*then run: cai fetch --run demo"):
        fetch.run(with_settings(context, f"student.model={student}"))


def test_a_redo_moves_nothing_for_a_folder_that_cannot_be_trained(context: RunContext, student: Path) -> None:
    local = with_settings(context, f"student.model={student}")
    fetch.run(local)
    there = sorted(context.folder.rglob("*"))
    (student / "tokenizer.json").unlink()

    fetch.run(local)
    with pytest.raises(ConfigError, match=r"has no tokenizer\.json"):
        fetch.run(replace(local, redo=True))
    with pytest.raises(ConfigError, match="no folder /none"):
        fetch.run(replace(with_settings(context, "student.model=/none"), redo=True))
    assert sorted(context.folder.rglob("*")) == there


@pytest.mark.parametrize("kind", ["mapping", "list"])
def test_a_template_whose_tokens_the_student_lacks_is_refused_before_a_token_is_paid(
    context: RunContext, student: Path, kind: str
) -> None:
    words = ["a", "<|im_start|>"]
    vocabulary = {word: i for i, word in enumerate(words)} if kind == "mapping" else [[word, -1.0] for word in words]
    (student / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))

    with pytest.raises(ConfigError, match=r"chatml needs <\|im_end\|>, which .*tokenizer\.json .*\(mistral, zephyr\)"):
        fetch.run(with_settings(context, f"student.model={student}"))
    fetch.run(with_settings(context, f"student.model={student}", "student.chat_template=zephyr"))


@pytest.mark.parametrize("section", ["sft", "dpo"])
def test_rows_beyond_the_students_positions_are_refused_before_a_token_is_paid(
    context: RunContext, student: Path, section: str
) -> None:
    with pytest.raises(ConfigError, match=rf"{section}: max_length 513 .*--set {section}\.max_length=512$"):
        fetch.run(with_settings(context, f"student.model={student}", f"{section}.max_length=513"))
    fetch.run(with_settings(context, f"student.model={student}", f"{section}.max_length=512"))


def test_mix_in_rows_are_kept_under_their_hash(context: RunContext, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n')
    fetch.run(with_settings(context, f"sft.mix_in=[{{dataset: {rows}, weight: 1.0}}]"))
    (kept,) = load_fetched(context).mix_in.values()
    assert resolve(context.runs, kept.path).read_text() == rows.read_text()
    assert kept.sha256 == hashlib.sha256(rows.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("student.model=./nowhere", "student.model: no folder ./nowhere"),
        ("sft.mix_in=[{dataset: a/b, split: test_prefs, weight: 1}]", "should be a train split; .* found 'test_prefs'"),
        ("dpo.mix_in=[{dataset: ./none.jsonl, weight: 1}]", "mix_in.dataset: no file ./none.jsonl"),
        ("sft.mix_in=[{dataset: Makefile, weight: 1}]", r"ends in '', expected .jsonl or .parquet"),
    ],
    ids=["student", "test split", "no file", "other format"],
)
def test_what_cannot_be_fetched_is_named(
    context: RunContext, change: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT)
    with pytest.raises(ConfigError, match=message):
        fetch.run(with_settings(context, change))


def test_a_gguf_repository_needs_its_file_named(context: RunContext) -> None:
    with pytest.raises(ConfigError, match=r"initial\.gguf_file is missing"):
        fetch.run(with_settings(context, "initial.gguf_repo=a/b"))


def test_a_gguf_lies_under_its_commit(hub: FakeHub, tmp_path: Path) -> None:
    hub.files["tiny.gguf"] = b"gguf"
    settings = ("--set", "initial.gguf_repo=org/tiny", "--set", "initial.gguf_file=tiny.gguf")
    done = fetch_process(hub.url, tmp_path, "org/tiny", more=settings)
    assert done.returncode == 0, done.stderr
    context = RunContext(recipe=load_recipe("demo"), run="r", runs=tmp_path)
    assert load_fetched(context).initial_gguf == f"models/gguf/tiny-{COMMIT[:12]}/tiny.gguf"


def test_what_is_no_hub_id_is_one_line(hub: FakeHub, tmp_path: Path) -> None:
    done = fetch_process(hub.url, tmp_path, "org/tiny/too/deep")
    assert done.returncode == 78, done.stderr
    assert "Traceback" not in done.stderr


def test_a_local_mix_in_that_changed_is_not_called_finished(context: RunContext, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n')
    with_rows = with_settings(context, f"sft.mix_in=[{{dataset: {rows}, weight: 1.0}}]")
    fetch.run(with_rows)
    fetch.run(with_rows)
    rows.write_text('{"prompt": "a", "completion": "c"}\n')
    with pytest.raises(ConfigError, match="was finished with other settings: mix_in"):
        fetch.run(with_rows)
