"""SIGTERM leaves a checkpoint and nothing that looks finished; the resumed run is the undisturbed run, to the bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from jobs.common.errors import StoppedError
from jobs.common.jsonl import sha256_file, write_json
from jobs.common.stage import RunContext
from jobs.train import checkpoints, dpo, sft, watch

Runs = Callable[..., RunContext]


def adapter_sha256(context: RunContext, stage: str) -> str:
    return sha256_file(context.folder / stage / "adapter" / "adapter_model.safetensors")


def stop_after(monkeypatch: pytest.MonkeyPatch, micro_batches: int) -> None:
    """Set the flag as SIGTERM would, after so many micro-batches of training."""
    seen = 0

    def counted(name: str) -> None:
        original = getattr(watch.Watch, name)

        def call(self: watch.Watch, *args: object, **given: object) -> None:
            nonlocal seen
            seen += 1
            if seen == micro_batches:
                os.kill(os.getpid(), signal.SIGTERM)
            original(self, *args, **given)

        monkeypatch.setattr(watch.Watch, name, call)

    counted("on_substep_end")
    counted("on_step_end")


def copy_run(context: RunContext, run: str) -> RunContext:
    """The same finished parents under another run's name."""
    for stage in ("fetch", "generate", "sft"):
        if (context.folder / stage / "manifest.json").exists():
            shutil.copytree(context.folder / stage, context.runs / run / stage)
    return RunContext(recipe=context.recipe, run=run, runs=context.runs)


def test_sigterm_to_the_command_then_the_same_command_gives_the_undisturbed_adapter(tiny_run: Runs) -> None:
    context = tiny_run(sft={"max_steps": 24, "save_minutes": 10, "lora": {"rank": 4, "alpha": 8, "dropout": 0.1}})
    recipe = context.runs / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(context.recipe.model_dump(mode="json")))
    command = [sys.executable, "-m", "jobs", "sft", "--recipe", str(recipe), "--run", "r", "--runs", str(context.runs)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log = context.folder / "sft" / "log.jsonl"
    deadline = time.monotonic() + 90
    while not (log.exists() and len(log.read_bytes().splitlines()) >= 2) and time.monotonic() < deadline:
        time.sleep(0.02)
        assert process.poll() is None, process.stderr and process.stderr.read()
    process.terminate()
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 75, errors
    assert "a checkpoint of step" in errors.splitlines()[-1]
    assert not (context.folder / "sft" / "adapter").exists()
    assert not (context.folder / "sft" / "manifest.json").exists()
    undisturbed = copy_run(context, "undisturbed")

    sft.run(context)
    sft.run(undisturbed)

    assert adapter_sha256(context, "sft") == adapter_sha256(undisturbed, "sft")


def test_a_stop_anywhere_resumes_to_the_undisturbed_adapter(tiny_run: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = tiny_run(sft={"max_steps": 5, "lora": {"rank": 4, "alpha": 8, "dropout": 0.2}})
    stops = {
        "inside a step": [5],
        "inside the first step of an epoch": [9],
        "after a step, then inside the first step of the resumed run": [4, 1],
        "after the last step": [10],
    }
    runs = {name: copy_run(undisturbed, name.replace(" ", "-").replace(",", "")) for name in stops}
    sft.run(undisturbed)

    for name, context in runs.items():
        for micro_batches in stops[name]:
            with monkeypatch.context() as patch:
                stop_after(patch, micro_batches)
                with pytest.raises(StoppedError, match="Run the same command"):
                    sft.run(context)
        sft.run(context)

        assert adapter_sha256(context, "sft") == adapter_sha256(undisturbed, "sft"), name
        log = (context.folder / "sft" / "log.jsonl").read_text()
        assert [line["step"] for line in map(json.loads, log.splitlines())] == [1, 2, 3, 4, 5]


def test_dpo_resumes_to_the_undisturbed_adapter_with_the_sft_model_as_reference(
    tiny_run: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = tiny_run(sft={"max_steps": 2}, dpo={"max_steps": 4})
    sft.run(context)
    undisturbed = copy_run(context, "undisturbed")
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        with pytest.raises(StoppedError):
            dpo.run(context)

    dpo.run(context)
    dpo.run(undisturbed)

    assert adapter_sha256(context, "dpo") == adapter_sha256(undisturbed, "dpo")


def test_a_stop_before_the_first_step_saves_nothing_and_says_so(
    tiny_run: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = tiny_run()
    stop_after(monkeypatch, 1)

    with pytest.raises(StoppedError, match="no step had ended"):
        sft.run(context)

    assert not list((context.folder / "sft" / "checkpoints").glob("checkpoint-*"))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_broken_newest_checkpoint_is_named_and_the_one_before_it_is_used(
    tiny_run: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    context = tiny_run(sft={"max_steps": 4, "save_minutes": 1e-9})
    with monkeypatch.context() as patch:
        stop_after(patch, 6)
        with pytest.raises(StoppedError):
            sft.run(context)
    folder = context.folder / "sft" / "checkpoints"
    assert [path.name for path in sorted(folder.glob("checkpoint-*"))] == ["checkpoint-2", "checkpoint-3"]
    optimizer = folder / "checkpoint-3" / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:-100])
    undisturbed = copy_run(context, "undisturbed")

    sft.run(context)
    sft.run(undisturbed)

    said = capsys.readouterr().err
    assert "checkpoint-3 is damaged (optimizer.pt changed)" in said
    assert "going on from step 2" in said
    assert adapter_sha256(context, "sft") == adapter_sha256(undisturbed, "sft")


def make_checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    (path / "ref").mkdir(parents=True)
    (path / "weights").write_text(str(step))
    (path / "ref" / "weights").write_text("r")
    return path


@pytest.mark.parametrize("damage", ["missing", "changed", "no manifest", "bad manifest", "nested"])
def test_only_a_whole_checkpoint_is_used(tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    for step in (9, 10):
        checkpoints.seal_checkpoint(make_checkpoint(tmp_path, step))
    newest = tmp_path / "checkpoint-10"
    {
        "missing": lambda: (newest / "weights").unlink(),
        "changed": lambda: (newest / "weights").write_text("11"),
        "no manifest": lambda: (newest / "manifest.json").unlink(),
        "bad manifest": lambda: (newest / "manifest.json").write_text("{"),
        "nested": lambda: (newest / "ref" / "weights").unlink(),
    }[damage]()

    found = checkpoints.newest_checkpoint(tmp_path)

    assert found == tmp_path / "checkpoint-9"
    assert (tmp_path / "damaged-checkpoint-10-1").is_dir(), "nothing is removed"
    assert "checkpoint-10 is damaged" in capsys.readouterr().err


def test_two_whole_checkpoints_are_kept_and_unfinished_ones_are_not_counted(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, 4)
    for step in (1, 2, 3):
        checkpoints.seal_checkpoint(make_checkpoint(tmp_path, step))
    write_json(tmp_path / "before.json", {})

    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == [
        "checkpoint-2",
        "checkpoint-3",
        "checkpoint-4",
    ]


def test_no_checkpoint_means_a_start_from_scratch(tmp_path: Path) -> None:
    assert checkpoints.newest_checkpoint(tmp_path / "nothing") is None
