"""How a run ends: an endpoint that dies, an item that never works, SIGTERM, and `--until prompts`."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from typing import Any

import pytest

from jobs.common.recipe import PROJECT
from jobs.generate import attempts
from jobs.generate.journal import open_journal
from tests.fakes.load_behaviour import Behaviour
from tests.fakes.load_server import LoadServer
from tests.fakes.openai_server import Answer, plausible
from tests.generate.world import HANGS_S, World, error_line, start, wait_for

KEY = "no/known+shape=of.a.key"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "FIRST_BACKOFF_S", 0.02)
    monkeypatch.setattr(attempts, "LONGEST_BACKOFF_S", 0.2)


def test_a_wait_of_an_hour_ends_at_once_and_says_so(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.server.respond = lambda _: Answer(
        status=429, headers={"Retry-After": "3600"}, error={"message": "daily limit"}
    )
    assert world.generate() == 69, "in less than that hour"
    line = error_line(capsys)
    assert "60 minutes" in line
    assert "cai generate --run tiny" in line
    assert len(world.server.history) <= 8


def fake_death(world: World, alive: int) -> None:
    """The endpoint fails everything after so many replies."""

    def dying(body: dict[str, Any]) -> str | Answer:
        return plausible(body) if len(world.server.answered) < alive else Answer(status=500)

    world.server.respond = dying


def test_an_endpoint_that_dies_ends_the_run_after_few_requests(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_death(world, 20)
    larger = ("initial.endpoint=teacher", "generate.prompts_per_principle=12")
    assert world.sets(*larger) == 69
    line = error_line(capsys)
    assert "requests in a row failed" in line
    assert "cai generate --run tiny" in line
    failed = [one for one in world.server.history if one.status == 500]
    assert len(failed) <= 3 * (10 + 2 * 8)
    paid = {one.identity for one in world.server.answered}
    world.server.history.clear()
    world.server.respond = plausible
    assert world.sets(*larger) == 0
    assert not paid & {one.identity for one in world.server.history}
    assert len(world.rows("revisions.jsonl")) == 36


def test_a_server_that_goes_away_ends_the_run_and_what_came_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LoadServer(Behaviour(latency_s=0.02)) as leaving:
        monkeypatch.setenv("OPENAI_BASE_URL", leaving.url)
        many = ("generate.prompts_per_principle=300", "generate.max_requests_per_principle=300")
        changes = ("teacher.max_attempts=2", *many, f"initial.endpoint={leaving.url}")
        process = start(world, *(part for change in changes for part in ("--set", change)))
        while leaving.stats().delivered < 40:
            assert process.poll() is None
            time.sleep(0.01)
        server_process = leaving._process
        assert server_process
        server_process.kill()
        _, shown = process.communicate(timeout=HANGS_S)
        assert process.returncode == 69, shown
        assert "Traceback" not in shown
        assert "every reply so far is journalled" in shown
    with closing(open_journal(world.runs / "journal")) as journal:
        assert journal.count() >= 40 - 8
        assert len(journal.lost("tiny")) <= 16, "only what was on the wire may have been charged"


def test_one_item_that_always_fails_is_set_down_and_the_rest_goes_on(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    first: list[str] = []

    def sick(body: dict[str, Any]) -> str | Answer:
        chat = body["messages"]
        if len(chat) == 3 and (not first or first[0] == chat[0]["content"]):
            first.append(chat[0]["content"])
            return Answer(status=500, error={"message": f"it broke, {KEY}"})
        return plausible(body)

    world.server.respond = sick
    assert world.generate("--verbose") == 0
    (row,) = world.rows("failures.jsonl")
    assert (row["step"], row["reason"], row["status"]) == ("critique", "unavailable", 500)
    assert "it broke" in row["body"]
    assert "teacher.max_attempts" in row["advice"]
    assert row["request"]["messages"][0]["content"] == first[0]
    assert row["request"]["model"] == "fake-teacher"
    assert "3 attempts" in row["detail"]
    assert len(first) == 3
    assert len(world.rows("revisions.jsonl")) == 17
    shown = capsys.readouterr().err
    assert re.search(rf"^{row['id']}: critique unavailable \(HTTP 500\): .*→ ", shown, re.MULTILINE)
    assert "1 failed items are in" in shown
    assert world.manifest()["counts"]["failures"] == 1


def test_redo_after_a_failure_asks_only_for_that_item(world: World) -> None:
    refused: list[str] = []

    def sick(body: dict[str, Any]) -> str | Answer:
        chat = body["messages"]
        if len(chat) == 3 and (not refused or refused[0] == chat[0]["content"]):
            refused.append(chat[0]["content"])
            return Answer(status=400, error={"message": "no"})
        return plausible(body)

    world.server.respond = sick
    assert world.generate() == 0
    assert len(world.rows("revisions.jsonl")) == 17
    world.server.history.clear()
    world.server.respond = plausible
    assert world.generate("--redo") == 0
    assert [len(one.body["messages"]) for one in world.server.history] == [3, 5]
    assert {one.body["messages"][0]["content"] for one in world.server.history} == {refused[0]}
    assert len(world.rows("revisions.jsonl")) == 18


def test_more_tries_ask_again_only_for_rows_that_failed(world: World) -> None:
    stubborn: list[str] = []

    def quiet(body: dict[str, Any]) -> str | Answer:
        chat = body["messages"]
        if len(chat) == 3 and (not stubborn or stubborn[0] == chat[0]["content"]):
            stubborn.append(chat[0]["content"])
            return "" if len(stubborn) <= 4 else plausible(body)
        return plausible(body)

    world.server.respond = quiet
    assert world.generate() == 0
    assert [(row["reason"], row["step"]) for row in world.rows("failures.jsonl")] == [("empty", "critique")]
    world.server.history.clear()
    assert world.generate("--redo", "--set", "generate.tries=6") == 0
    assert [len(one.body["messages"]) for one in world.server.history] == [3, 5]
    assert len(world.rows("revisions.jsonl")) == 18
    assert world.rows("failures.jsonl") == []


def test_a_key_that_the_server_repeats_reaches_no_file_and_no_message(
    world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    first: list[str] = []

    def chatty(body: dict[str, Any]) -> str | Answer:
        chat = body["messages"]
        if len(chat) in {3, 5} and len(first) < 6:
            first.append(chat[0]["content"])
            return [
                Answer(status=400, error={"message": f"bad request by {KEY}"}),
                Answer(status=500, body=f"<html>{KEY}</html>".encode()),
                Answer(status=400, body=json.dumps({"error": {"message": KEY}}).replace("/", "\\/").encode()),
                Answer(status=400, body=json.dumps({"error": {"message": KEY}}).replace("+", "\\u002B").encode()),
                Answer(body=f"Welcome, {KEY}".encode()),
                Answer(status=429, error={"message": f"{KEY} is over its limit"}, headers={"Retry-After": "0.01"}),
            ][len(first) - 1]
        return plausible(body)

    world.server.respond = chatty
    assert world.generate("--verbose") == 0
    assert len(first) == 6
    assert {one.authorization for one in world.server.history} == {f"Bearer {KEY}"}
    shown = capfd.readouterr()
    assert KEY not in shown.out + shown.err
    assert not [path for path in world.runs.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    world.server.respond = lambda _: Answer(status=401, error={"message": f"Incorrect key {KEY}"})
    assert world.generate("--redo", "--set", "seed=5") == 69
    shown = capfd.readouterr()
    assert KEY not in shown.out + shown.err


TELLS_WHEN_IT_WAITS = """
import sys
from jobs.__main__ import main
from jobs.generate import pace
from jobs.generate.session import Session
real, pace.DRAIN_S = Session.drain, float("inf")
async def drain(session):
    print("waiting", flush=True)
    await real(session)
Session.drain = drain
sys.exit(main(sys.argv[1:]))
"""
IN_FLIGHT = 3
"""A request for each principle."""


def stopped_in_flight(world: World, held: threading.Event) -> subprocess.Popen[str]:
    """A job that got SIGTERM and waits for the replies to all it sent, which come once `held` is set."""
    world.server.respond = lambda _: Answer(held=held)
    limits = ("--set", f"teacher.concurrency={IN_FLIGHT}", "--set", "teacher.timeout_s=1000")
    command = [sys.executable, "-c", TELLS_WHEN_IT_WAITS, *world.arguments(*limits)]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(world, IN_FLIGHT)
    process.send_signal(signal.SIGTERM)
    assert process.stdout
    assert process.stdout.readline() == "waiting\n"
    return process


def test_sigterm_waits_for_replies_on_their_way_and_sends_nothing_new(world: World) -> None:
    held = threading.Event()
    process = stopped_in_flight(world, held)
    held.set()
    _, shown = process.communicate(timeout=HANGS_S)
    assert process.returncode == 75, shown
    assert len(world.server.history) == IN_FLIGHT, "something new was sent"
    with closing(open_journal(world.runs / "journal")) as journal:
        assert journal.count() == IN_FLIGHT, "a reply that was paid for was not waited for"
        assert journal.lost("tiny") == []


def test_a_second_sigterm_waits_for_nothing_and_what_was_sent_stays_counted(world: World) -> None:
    held = threading.Event()
    process = stopped_in_flight(world, held)
    process.send_signal(signal.SIGTERM)
    _, shown = process.communicate(timeout=HANGS_S)
    held.set()
    assert process.returncode == 75, shown
    with closing(open_journal(world.runs / "journal")) as journal:
        assert len(journal.lost("tiny")) == len(world.server.history) == IN_FLIGHT


def test_until_prompts_freezes_them_and_the_next_run_starts_there(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.generate("--set", "initial.endpoint=file", "--until", "prompts") == 0
    assert len(world.rows("prompts.jsonl")) == 18
    assert {len(one.body["messages"]) for one in world.server.history} == {2}
    assert not (world.stage / "manifest.json").exists()
    assert "Next: cai respond --system base --run tiny" in capsys.readouterr().err
    world.server.history.clear()
    assert world.generate("--set", "initial.endpoint=file", "--until", "prompts") == 0
    assert "already frozen" in capsys.readouterr().err
    assert world.server.history == []


def test_until_prompts_leaves_it_to_generate_where_no_file_is_waited_for(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.generate("--until", "prompts") == 0
    assert "generate writes the prompts itself" in capsys.readouterr().err
    assert world.server.history == []
    assert world.generate() == 0
