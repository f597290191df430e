"""Killed, stopped and locked: what arrived is kept, and nothing journalled is asked again."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from jobs.generate.journal import open_journal
from tests.fakes.openai_server import Answer, plausible
from tests.generate.test_run import outputs
from tests.generate.world import HANGS_S, World, start, wait_for


@pytest.fixture
def held() -> Iterator[threading.Event]:
    """Lets held replies go, at the end of the test at the latest."""
    event = threading.Event()
    yield event
    event.set()


def hold_after(world: World, answered: int, held: threading.Event) -> None:
    """Answer so many requests and hold the replies to all later ones, so that the job cannot end."""

    def respond(_: dict[str, Any]) -> Answer:
        return Answer(held=held if len(world.server.history) >= answered else None)

    world.server.respond = respond


def start_four_at_once(world: World) -> subprocess.Popen[str]:
    return start(world, "--set", "teacher.concurrency=4", "--set", "teacher.timeout_s=1000")


@pytest.mark.parametrize("at", [4, 25], ids=["in-prompts", "in-chains"])
def test_after_sigkill_no_journalled_reply_is_asked_again(world: World, held: threading.Event, at: int) -> None:
    hold_after(world, at, held)
    process = start_four_at_once(world)
    wait_for(world, at + 1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    journal = open_journal(world.runs / "journal")
    counted = journal.count()
    journal.close()
    kept = counted
    asked = [request.identity for request in world.server.history]
    assert len(asked) - kept <= 4, "only requests in flight are lost"
    assert kept >= at - 4 - 1
    world.server.history.clear()
    world.server.respond = plausible
    assert world.sets("teacher.concurrency=4") == 0
    again = [request.identity for request in world.server.history if request.identity in set(asked)]
    assert len(again) == len(asked) - kept
    assert len(world.rows("revisions.jsonl")) == 18


def test_sigterm_exits_75_and_the_next_run_ends_as_an_undisturbed_one(world: World, held: threading.Event) -> None:
    hold_after(world, 20, held)
    process = start_four_at_once(world)
    wait_for(world, 20)
    process.send_signal(signal.SIGTERM)
    held.set()
    _, shown = process.communicate(timeout=HANGS_S)
    assert process.returncode == 75, shown
    assert "Run again: cai generate --run tiny" in shown
    assert "Traceback" not in shown
    assert not (world.stage / "manifest.json").exists()
    world.server.respond = plausible
    assert world.generate() == 0
    resumed = outputs(world)
    (world.runs / "journal" / "replies.jsonl").unlink()
    assert world.generate("--redo") == 0
    assert outputs(world) == resumed


def test_ctrl_c_exits_130_and_keeps_the_journal(world: World, held: threading.Event) -> None:
    hold_after(world, 20, held)
    process = start_four_at_once(world)
    wait_for(world, 20)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=HANGS_S)
    assert process.returncode == 130, shown
    assert "Traceback" not in shown
    journal = open_journal(world.runs / "journal")
    counted = journal.count()
    journal.close()
    assert journal.damaged == 0
    assert counted >= 15


def test_a_damaged_journal_is_named_and_only_its_line_is_asked_again(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert world.generate() == 0
    path = world.runs / "journal" / "replies.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    world.server.history.clear()
    assert world.generate("--redo") == 0
    assert "1 damaged line" in capsys.readouterr().err
    assert len(world.server.history) == 1


def test_another_process_on_the_same_run_says_who_holds_it(
    world: World, held: threading.Event, capsys: pytest.CaptureFixture[str]
) -> None:
    hold_after(world, 0, held)
    process = start_four_at_once(world)
    wait_for(world, 3)
    assert world.generate() == 75
    assert f'"pid": {process.pid}' in capsys.readouterr().err
    process.kill()
    process.communicate()
