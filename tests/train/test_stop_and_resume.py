"""SIGTERM leaves a checkpoint and nothing that looks finished; the resumed run is the undisturbed run, to the bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
import yaml

from jobs.common.errors import StoppedError
from jobs.common.stage import RunContext
from jobs.train import dpo, sft
from tests.train.stopped import adapter_sha256, copy_run, stop_after

Runs = Callable[..., RunContext]

RESTS_AFTER_STEP_2 = """
import sys
from jobs.__main__ import main
from jobs.train.watch import Watch
real = Watch.on_log
def on_log(watch, args, state, control, **given):
    real(watch, args, state, control, **given)
    if state.global_step == 2:
        print("step 2", flush=True)
        sys.stdin.read()
Watch.on_log = on_log
sys.exit(main(sys.argv[1:]))
"""


def test_sigterm_to_the_command_then_the_same_command_gives_the_undisturbed_adapter(tiny_run: Runs) -> None:
    context = tiny_run(sft={"max_steps": 24, "save_minutes": 10, "lora": {"rank": 4, "alpha": 8, "dropout": 0.1}})
    recipe = context.runs / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(context.recipe.model_dump(mode="json")))
    where = ["sft", "--recipe", str(recipe), "--run", "r", "--runs", str(context.runs)]
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", RESTS_AFTER_STEP_2, *where]
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout
    assert process.stdout.readline() == "step 2\n"
    process.terminate()
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 75, errors
    assert "a checkpoint of step 2" in errors.splitlines()[-1]
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
        lines = list(map(json.loads, (context.folder / "sft" / "log.jsonl").read_text().splitlines()))
        assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5]
        assert [line["step"] for line in lines if "held_out/loss" in line] == [0, 2, 4, 5]


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


@pytest.mark.parametrize("moment", ["load_model", "prepare_data", "_trainer"])
def test_a_stop_while_a_stage_gets_ready_ends_it_there_and_then(
    tiny_run: Runs, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    context = tiny_run()
    with monkeypatch.context() as patch:
        patch.setattr(sft, moment, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(StoppedError, match="Run the same command to go on"):
            sft.run(context)

    sft.run(context)

    assert (context.folder / "sft" / "manifest.json").exists()


def test_what_was_measured_before_the_first_step_is_measured_again_where_its_file_is_damaged(
    tiny_run: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    context = tiny_run(sft={"max_steps": 2}, dpo={"max_steps": 3})
    sft.run(context)
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(StoppedError):
            dpo.run(context)
    path = context.folder / "dpo" / "before.json"
    before = path.read_bytes()
    path.write_bytes(before[:-10])

    dpo.run(context)

    assert "before.json is damaged: not JSON" in capsys.readouterr().err
    assert path.read_bytes() == before, "the model is as it was before the first step"


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
