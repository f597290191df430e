"""Bad endpoints: one clear line, the right exit code, and nothing that arrived is lost."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.openai_server import Answer, plausible
from tests.generate.world import KEY, World, error_line

POLICY = {
    "message": "Rejected by our content policy.",
    "type": "invalid_request_error",
    "code": "content_policy_violation",
}


def journalled(world: World) -> int:
    lines = (world.runs / "journal" / "replies.jsonl").read_bytes().split(b"\n")
    return sum(b'"reply": {' in line for line in lines)


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (401, {"message": f"Incorrect API key provided: {KEY}"}, ["401", "OPENAI_API_KEY"]),
        (403, {"message": "forbidden"}, ["403", "OPENAI_API_KEY"]),
        (404, {"message": "The model does not exist", "code": "model_not_found"}, ["404", "fake-teacher"]),
        (429, {"message": "You exceeded your quota", "code": "insufficient_quota"}, ["429", "no credit"]),
    ],
    ids=["401", "403", "404", "no-credit"],
)
def test_a_hopeless_answer_stops_the_run_at_once(
    world: World, capsys: pytest.CaptureFixture[str], status: int, error: dict[str, Any], words: list[str]
) -> None:
    world.server.respond = lambda _: Answer(status=status, error=error)
    assert world.generate() == 69
    line = error_line(capsys)
    assert all(word in line for word in [*words, "127.0.0.1", "cai generate --run tiny"]), line
    assert KEY not in line
    assert len(world.server.history) <= 6, "nothing is sent after the first answer"
    assert not (world.stage / "manifest.json").exists()


def test_an_endpoint_that_is_down_is_named_and_the_journal_keeps_what_came(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{port}/v1")
    assert world.sets("teacher.max_attempts=2") == 69
    assert f"127.0.0.1:{port}" in error_line(capsys)


def test_content_policy_on_one_item_is_a_failure_row_and_the_run_goes_on(world: World) -> None:
    refused: list[str] = []

    def touchy(body: dict[str, Any]) -> str | Answer:
        chat = body["messages"]
        if len(chat) == 3 and (not refused or refused[0] == chat[0]["content"]):
            refused.append(chat[0]["content"])
            return Answer(status=400, error=POLICY)
        return plausible(body)

    world.server.respond = touchy
    assert world.generate() == 0
    assert len(refused) == 1, "a 400 is not tried again"
    failure = world.rows("failures.jsonl")
    assert [(row["step"], row["reason"]) for row in failure] == [("critique", "content_policy")]
    assert "content policy" in failure[0]["detail"]
    assert len(world.rows("revisions.jsonl")) == 17


def test_endless_429_ends_the_run_and_the_next_one_goes_on(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    limited: list[bool] = []

    def busy(body: dict[str, Any]) -> str | Answer:
        if limited or len(world.server.answered) >= 10:
            limited.append(True)
            return Answer(status=429, headers={"Retry-After": "0.05"}, error={"message": "slow down"})
        return plausible(body)

    world.server.respond = busy
    assert world.sets("teacher.max_attempts=1") == 69
    line = error_line(capsys)
    assert "429" in line
    assert "attempts, the last: HTTP 429" in line
    kept = journalled(world)
    assert kept >= 10
    first = [asked.identity for asked in world.server.answered]
    world.server.respond = plausible
    world.server.history.clear()
    assert world.generate() == 0
    assert not {asked.identity for asked in world.server.history} & set(first[:kept])


def test_a_refused_request_comes_back_no_sooner_than_its_retry_after(world: World) -> None:
    world.server.enqueue(Answer(), Answer(status=429, headers={"Retry-After": "0.6"}))
    assert world.generate() == 0
    limited = next(asked for asked in world.server.history if asked.status == 429)
    again = [asked.at for asked in world.server.answered if asked.identity == limited.identity]
    assert len(again) == 1
    assert again[0] - limited.at >= 0.6


def test_when_nothing_gets_through_every_request_waits(world: World) -> None:
    world.server.enqueue(*[Answer(status=429, headers={"Retry-After": "0.6"})] * 6)
    assert world.generate() == 0
    limited = [asked for asked in world.server.history if asked.status == 429]
    first_reply = min(asked.at for asked in world.server.answered)
    assert len(limited) == 6
    assert first_reply - limited[0].at >= 0.6


@pytest.mark.parametrize("status", [500, 503, 408])
def test_passing_trouble_is_tried_again(world: World, status: int) -> None:
    world.server.enqueue(*[Answer(status=status, headers={"Retry-After": "0.01"})] * 2)
    assert world.generate() == 0
    assert len(world.rows("revisions.jsonl")) == 18


@pytest.mark.parametrize(
    "body", [b"<html>gateway</html>", b'{"choices": []}', b'{"ok": true}'], ids=["html", "no-choices", "no-completion"]
)
def test_a_200_that_is_no_completion_is_tried_again_and_never_journalled(world: World, body: bytes) -> None:
    world.server.enqueue(Answer(body=body))
    assert world.generate() == 0
    assert journalled(world) == len(world.server.history) - 1


def test_no_key_for_a_remote_endpoint_asks_nothing(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://user:pass@api.example.com/v1")
    (tmp_path / "empty").write_text("\n", encoding="utf-8")
    for file in ("", "/dev/null", str(tmp_path / "empty")):
        monkeypatch.setenv("OPENAI_API_KEY_FILE", file)
        assert world.generate("--redo") == 78
        line = error_line(capsys)
        assert "https://api.example.com" in line
        assert "OPENAI_API_KEY_FILE" in line
        assert "pass" not in line
    monkeypatch.setenv("OPENAI_API_KEY_FILE", str(tmp_path / "absent"))
    assert world.generate("--redo") == 78
    assert "absent" in error_line(capsys)
    assert not world.server.history


def test_a_local_endpoint_needs_no_key_and_a_key_file_works(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    assert world.generate() == 0
    (tmp_path / "key").write_text(f"{KEY}\n", encoding="utf-8")
    monkeypatch.setenv("OPENAI_API_KEY_FILE", str(tmp_path / "key"))
    (world.runs / "journal" / "replies.jsonl").unlink()
    world.server.history.clear()
    assert world.generate("--redo") == 0
    assert {asked.authorization for asked in world.server.history} == {f"Bearer {KEY}"}


def test_every_request_refused_stops_early(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.server.respond = lambda _: Answer(status=400, error={"message": "top_k must be set"})
    assert world.generate() == 69
    assert "top_k must be set" in error_line(capsys)
    assert len(world.server.history) <= 8


def test_an_unknown_initial_endpoint_is_refused(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert world.sets("initial.endpoint=studnet") == 78
    assert "'studnet'" in error_line(capsys)


def test_the_run_ends_although_one_request_hangs(world: World) -> None:
    held = threading.Event()
    world.server.enqueue(Answer(), Answer(held=held))
    assert world.sets("teacher.timeout_s=2") == 0, "while that reply is still held"
    held.set()


def test_a_parameter_that_is_refused_for_good_is_told_in_the_endpoints_words(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    error = {"message": "response_format is not supported by this model"}
    world.server.respond = lambda _: Answer(status=400, error=error)
    assert world.sets("teacher.structured=on") == 69
    assert "not supported by this model" in error_line(capsys)
