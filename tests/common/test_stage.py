from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.common.errors import ConfigError, DataError, StoppedError
from jobs.common.manifest import finished_manifest
from jobs.common.recipe import PROJECT
from jobs.common.stage import Result, RunContext, StagePlan, open_stage

RATE_1 = {"sft": {"learning_rate": 1.0}}
RATE_2 = {"sft": {"learning_rate": 2.0}}


def finish(context: RunContext, ingredients: dict[str, Any], name: str = "fetch", text: str = "data") -> bool:
    """Run a stage that writes one file; False where it had finished before."""
    with open_stage(context, StagePlan(name, ingredients, (), "cpu")) as stage:
        if stage is None:
            return False
        output = stage.folder / "out.txt"
        output.write_text(text)
        stage.finish(Result(outputs=[output], counts={"rows": 1}))
        return True


def child(context: RunContext) -> StagePlan:
    return StagePlan("generate", {}, ("fetch",), "cpu")


def test_a_finished_stage_is_not_done_again(context: RunContext, capsys: pytest.CaptureFixture[str]) -> None:
    assert finish(context, RATE_1)
    before = (context.folder / "fetch" / "manifest.json").read_bytes()
    assert not finish(context, RATE_1, text="other")
    assert (context.folder / "fetch" / "manifest.json").read_bytes() == before
    assert "fetch: already finished" in capsys.readouterr().err


def test_a_manifest_tells_what_made_the_output(context: RunContext) -> None:
    finish(context, RATE_1)
    manifest = finished_manifest(context, "fetch")
    assert manifest["outputs"] == {"out.txt": "3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"}
    assert manifest["recipe"]["constitution"] == "south_africa"
    assert manifest["packages"]["pydantic"]
    for key in ("source_tree_sha256", "lock_sha256", "fingerprint"):
        assert len(manifest[key]) == 64


@pytest.mark.parametrize("state", ["finished", "begun"])
def test_other_settings_stop_and_name_the_change_and_both_ways_on(context: RunContext, state: str) -> None:
    finish(context, RATE_1)
    if state == "begun":
        (context.folder / "fetch" / "manifest.json").unlink()
    with pytest.raises(ConfigError, match=rf"was {state} .*learning_rate was 1.0, now 2.0.*--run.*--redo"):
        finish(context, RATE_2)
    assert (context.folder / "fetch" / "out.txt").read_text() == "data"


def test_redo_keeps_the_earlier_output_aside(context: RunContext) -> None:
    finish(context, RATE_1)
    assert finish(replace(context, redo=True), RATE_2, text="new")
    assert finish(replace(context, redo=True), RATE_2, text="newer")
    assert (context.folder / "fetch" / "out.txt").read_text() == "newer"
    assert (context.folder / "fetch.replaced-1" / "out.txt").read_text() == "data"
    assert (context.folder / "fetch.replaced-2" / "out.txt").read_text() == "new"


def test_a_stage_that_raised_left_no_manifest_and_starts_again(context: RunContext) -> None:
    plan = StagePlan("fetch", RATE_1, (), "cpu")
    with pytest.raises(ZeroDivisionError), open_stage(context, plan):
        raise ZeroDivisionError
    assert not (context.folder / "fetch" / "manifest.json").exists()
    assert finish(context, RATE_1)


def test_what_a_killed_process_left_half_written_goes_when_the_stage_begins_again(context: RunContext) -> None:
    folder = context.folder / "fetch"
    (folder / ".adapter.7.tmp").mkdir(parents=True)
    (folder / ".adapter.7.tmp" / "weights").write_bytes(b"half")
    (folder / ".manifest.json.7.tmp").write_bytes(b"{")
    assert finish(context, RATE_1)
    assert not list(folder.glob(".*.tmp"))


def test_a_missing_parent_names_the_next_command(context: RunContext) -> None:
    with (
        pytest.raises(ConfigError, match=r'No finished "fetch" stage .*Run: cai fetch --run demo'),
        open_stage(context, child(context)),
    ):
        pass


def test_a_parent_output_that_changed_is_refused(context: RunContext) -> None:
    finish(context, RATE_1)
    (context.folder / "fetch" / "out.txt").write_text("tampered")
    with (
        pytest.raises(DataError, match=r"out\.txt changed since fetch finished"),
        open_stage(context, child(context)),
    ):
        pass


def test_a_child_is_new_when_its_parent_wrote_something_else(context: RunContext) -> None:
    finish(context, RATE_1)
    with open_stage(context, child(context)) as stage:
        assert stage is not None
        stage.finish(Result(outputs=[]))
    finish(replace(context, redo=True), RATE_1, text="other")
    with pytest.raises(ConfigError, match=r"inputs\.fetch/out\.txt was"), open_stage(context, child(context)):
        pass


@pytest.mark.parametrize("damage", ["{", "{}", '{"outputs": 1, "fingerprint": 2}'])
def test_a_damaged_manifest_is_named(context: RunContext, damage: str) -> None:
    finish(context, RATE_1)
    (context.folder / "fetch" / "manifest.json").write_text(damage)
    with pytest.raises(DataError, match=r"manifest\.json is damaged.*Run: cai fetch --run demo --redo"):
        finish(context, RATE_1)


def test_an_output_that_vanished_is_not_called_finished(context: RunContext) -> None:
    finish(context, RATE_1)
    (context.folder / "fetch" / "out.txt").unlink()
    with pytest.raises(DataError, match=r"out\.txt is missing"):
        finish(context, RATE_1)


def test_a_second_process_says_who_holds_the_run(context: RunContext, tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from jobs.common.runlock import run_lock\n"
        "with run_lock(Path(sys.argv[1]), 'sft'):\n    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(context.folder)], stdout=subprocess.PIPE, text=True, cwd=PROJECT
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoppedError, match=rf'is locked by .*"stage": "sft", "pid": {holder.pid}'):
            finish(context, RATE_1)
    finally:
        holder.kill()
        holder.wait()
        if holder.stdout:
            holder.stdout.close()
    assert finish(context, RATE_1), "the kernel gives the lock back when its holder dies"


def test_the_folder_of_a_run_and_the_order_of_keys_are_outside_the_fingerprint(
    context: RunContext, tmp_path: Path
) -> None:
    two_keys: dict[str, Any] = {"a": {"b": 1, "c": 2}, "seed": 0}
    finish(context, two_keys)
    context.runs.rename(tmp_path / "elsewhere")
    moved = replace(context, runs=tmp_path / "elsewhere")
    assert not finish(moved, {"seed": 0, "a": {"c": 2, "b": 1}})


@pytest.mark.parametrize("damage", ["{", "{}", '{"fingerprint": "x"}'])
def test_a_damaged_begun_file_is_named(context: RunContext, damage: str) -> None:
    (context.folder / "fetch").mkdir(parents=True)
    (context.folder / "fetch" / "begun.json").write_text(damage)
    with pytest.raises(DataError, match=r"begun\.json is damaged.*Run: cai fetch --run demo --redo"):
        finish(context, RATE_1)


def test_a_manifest_without_its_ingredients_is_damaged(context: RunContext) -> None:
    finish(context, RATE_1)
    (context.folder / "fetch" / "manifest.json").write_text('{"outputs": {}, "fingerprint": "other"}')
    with pytest.raises(DataError, match="'ingredients' is missing"):
        finish(context, RATE_1)


def test_a_stage_that_another_process_finished_while_we_came_for_the_lock_is_not_done_again(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def late_lock(_folder: Path, _stage: str) -> Iterator[None]:
        monkeypatch.undo()
        assert finish(context, RATE_1)
        yield

    monkeypatch.setattr("jobs.common.stage.run_lock", late_lock)
    assert not finish(context, RATE_1, text="other")
    assert (context.folder / "fetch" / "out.txt").read_text() == "data"


def test_the_next_command_names_the_recipe_and_the_folder_too(context: RunContext) -> None:
    given = replace(context, given="--recipe mistral-7b --runs /data")
    with pytest.raises(ConfigError, match=r"Run: cai fetch --run demo --recipe mistral-7b --runs /data$"):
        finished_manifest(given, "fetch")


def test_redo_moves_nothing_where_an_input_has_changed(context: RunContext) -> None:
    assert finish(context, RATE_1)
    plan = child(context)
    with open_stage(context, plan) as stage:
        assert stage is not None
        stage.finish(Result([]))
    (output,) = finished_manifest(context, "fetch")["outputs"]
    (context.folder / "fetch" / output).write_text("changed")
    with pytest.raises(DataError, match="changed since fetch finished"), open_stage(replace(context, redo=True), plan):
        pass
    assert (context.folder / "generate" / "manifest.json").exists()
