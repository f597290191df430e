"""Batch mode over kills, stops and an endpoint that forgets: nothing is asked or paid twice."""

from __future__ import annotations

import json
import signal
import time

import pytest

from jobs.generate import batch_post, batch_watch, teacher
from tests.fakes.load_behaviour import Behaviour
from tests.generate.batches import LINES, LOOK_S, QUIET_S, Batches, served, world
from tests.generate.world import HANGS_S, KEY

__all__ = ["served", "world"]

KILLS = {
    "between-upload-and-create": (teacher.BatchApi, "create", "before", 1),
    "between-create-and-its-journal-line": (teacher.BatchApi, "create", "after", 2),
    "while-polling": (batch_watch.Watch, "until_over", "before", 2),
    "while-downloading": (batch_post.Post, "settle", "after", 30),
}


@pytest.mark.parametrize(("owner", "name", "when", "call"), KILLS.values(), ids=KILLS.keys())
def test_after_kill_9_nothing_is_asked_or_paid_twice(
    world: Batches, owner: type, name: str, when: str, call: int
) -> None:
    live = world.live_rows()
    script = KILLER.format(quiet=QUIET_S, look=LOOK_S, module=owner.__module__, owner=owner.__name__, name=name)
    process = world.start(script, when, str(call))
    _, shown = process.communicate()
    assert process.returncode == -signal.SIGKILL, shown
    assert world.generate() == 0
    assert world.rows() == live
    stats = world.server.stats()
    assert (stats.batch_lines, stats.attempts, stats.delivered_twice) == (LINES, 45, 0)
    account = world.manifest()["measures"]["account"]
    assert account["lost_requests"] == 0
    assert account["spent_usd"] == pytest.approx(world.manifest("live")["cost_usd"] / 2)


def test_verdicts_in_a_batch_of_a_killed_process_keep_their_probabilities(world: Batches) -> None:
    judged = world.recipe.read_text(encoding="utf-8").replace('rule: "off"', "rule: both_orders")
    world.recipe.write_text(judged, encoding="utf-8")
    live = world.live_rows()
    names = {"module": "jobs.generate.batch_watch", "owner": "Watch", "name": "until_over"}
    process = world.start(KILLER.format(quiet=QUIET_S, look=LOOK_S, **names), "before", "4")
    _, shown = process.communicate()
    assert process.returncode == -signal.SIGKILL, shown
    assert world.generate() == 0
    assert world.rows() == live
    assert world.server.stats().delivered_twice == 0
    folder = world.folder / "batch" / "tiny" / "generate"
    lines = (folder / "comparisons.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 45
    assert {round(json.loads(line)["shown_first"], 3) for line in lines} == {0.2, 0.8}


KILLER = """
import inspect, os, signal, sys
from jobs.__main__ import main
from jobs.generate import batch, batch_watch
import {module} as module
batch.QUIET_S, batch_watch.FIRST_LOOK_S = {quiet}, {look}
when, last = sys.argv[1], int(sys.argv[2])
real, calls = module.{owner}.{name}, 0
def count():
    global calls
    calls += 1
    return calls == last
def die():
    os.kill(os.getpid(), signal.SIGKILL)
async def wait(*args, **kwargs):
    hit = count()
    if hit and when == "before": die()
    found = await real(*args, **kwargs)
    if hit: die()
    return found
def call(*args, **kwargs):
    hit = count()
    found = real(*args, **kwargs)
    if hit: die()
    return found
module.{owner}.{name} = wait if inspect.iscoroutinefunction(real) else call
sys.exit(main(sys.argv[3:]))
"""


LOOKS_TOMORROW = """
import sys
from jobs.__main__ import main
from jobs.generate import batch_watch
batch_watch.FIRST_LOOK_S = 86_400
sys.exit(main(sys.argv[1:]))
"""


def test_sigterm_while_a_batch_waits_exits_75_at_once_and_the_same_command_picks_it_up(world: Batches) -> None:
    world.server.change(Behaviour(batch_s=3600))
    process = world.start(LOOKS_TOMORROW)
    progress = world.folder / "batch" / "tiny" / "generate" / "progress.json"
    waits = "1 batch, 0 of 45 lines done, next look in "
    while not (progress.exists() and json.loads(progress.read_text())["figures"].startswith(waits)):
        assert process.poll() is None, "it does not wait for a batch"
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, shown = process.communicate(timeout=HANGS_S)
    assert process.returncode == 75, shown
    assert "1 batch at http://127.0.0.1" in shown
    assert "go on; the same command picks them up" in shown
    assert KEY not in shown
    world.server.change(Behaviour(batch_s=0.02))
    assert world.generate() == 0
    assert world.server.stats().batch_lines == LINES


def test_a_batch_the_endpoint_forgot_is_counted_as_lost_and_asked_again(world: Batches) -> None:
    script = KILLER.format(
        quiet=QUIET_S, look=LOOK_S, module="jobs.generate.batch_watch", owner="Watch", name="until_over"
    )
    world.start(script, "before", "1").communicate()
    assert world.server.stats().batch_lines == 45
    world.server.reset()
    assert world.generate() == 0
    assert world.server.stats().batch_lines == LINES
    assert world.manifest()["measures"]["account"]["lost_requests"] == 45
