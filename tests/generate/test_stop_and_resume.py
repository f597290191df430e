"""Killed, stopped and locked: what arrived is kept, and nothing journalled is asked again."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from jobs.generate.journal import open_journal
from tests.fakes.openai_server import Answer, plausible
from tests.generate.test_run import outputs
from tests.generate.world import World, start, wait_for


def slowly(_: dict[str, Any]) -> Answer:
    return Answer(delay_s=0.05)


@pytest.mark.parametrize("at", [4, 25], ids=["in-prompts", "in-chains"])
def test_after_sigkill_no_journalled_reply_is_asked_again(world: World, at: int) -> None:
    world.server.respond = slowly
    process = start(world, "--set", "teacher.concurrency=4")
    wait_for(world, at)
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


def test_sigterm_exits_75_and_the_next_run_ends_as_an_undisturbed_one(world: World) -> None:
    world.server.respond = slowly
    process = start(world, "--set", "teacher.concurrency=4")
    wait_for(world, 20)
    process.send_signal(signal.SIGTERM)
    _, shown = process.communicate(timeout=10)
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


def test_ctrl_c_exits_130_and_keeps_the_journal(world: World) -> None:
    world.server.respond = slowly
    process = start(world, "--set", "teacher.concurrency=4")
    wait_for(world, 20)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=10)
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


def test_another_process_on_the_same_run_says_who_holds_it(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.server.respond = slowly
    process = start(world, "--set", "teacher.concurrency=4")
    wait_for(world, 3)
    assert world.generate() == 75
    assert f'"pid": {process.pid}' in capsys.readouterr().err
    process.kill()
    process.communicate()
