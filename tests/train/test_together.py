"""Two processes train what one trains: same losses, same adapter, one set of files, one exit code, one signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from jobs.common.jsonl import read_json
from jobs.common.stage import RunContext
from jobs.train import dpo, sft, together
from jobs.train.logged import read_log
from tests.train.stopped import copy_run

Runs = Callable[..., RunContext]
ROOT = Path(__file__).resolve().parents[2]
DDP = ROOT / "recipes" / "accelerate" / "ddp.yaml"
DROPOUT = {"lora": {"rank": 4, "alpha": 8, "dropout": 0.1}}


ON_CPU = Path(__file__).with_name("divided_on_cpu")


def start(
    context: RunContext, stage: str, config: Path = DDP, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    recipe = context.runs / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(context.recipe.model_dump(mode="json")))
    where = ["--recipe", str(recipe), "--run", context.run, "--runs", str(context.runs)]
    return subprocess.Popen(
        [sys.executable, "-m", "jobs.train.launch", str(config), stage, *where],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | dict(environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    said = process.communicate(timeout=240)[1]
    assert process.returncode == 0, said
    return said


def start_and_rest(context: RunContext, stage: str, config: Path = DDP) -> subprocess.Popen[str]:
    """Start a stage and wait until step 2 is written down; its processes go no further before SIGTERM."""
    environment = {"REST_AFTER_STEP": "2", "PYTHONPATH": f"{ON_CPU}{os.pathsep}{ROOT}"}
    process = start(context, stage, config, environment)
    log = context.folder / stage / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and any(entry.get("step") == 2 for entry in read_log(log))):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "step 2 was not reached"
        time.sleep(0.02)
    return process


def losses(context: RunContext, stage: str) -> list[float]:
    return [entry["loss"] for entry in read_log(context.folder / stage / "log.jsonl") if "loss" in entry]


def assert_same_training(one: RunContext, two: RunContext, stage: str) -> None:
    assert losses(two, stage) == pytest.approx(losses(one, stage), abs=1e-6)
    expected, found = (
        load_file(context.folder / stage / "adapter" / "adapter_model.safetensors") for context in (one, two)
    )
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)


def test_two_processes_give_the_losses_and_adapters_of_one(tiny_run: Runs) -> None:
    one = tiny_run(dpo={"batch_size": 7})  # of 8 pairs: in the second step one process has none
    two = copy_run(one, "two")
    sft.run(one)
    dpo.run(one)

    said = finish(start(two, "sft"))
    finish(start(two, "dpo"))

    assert_same_training(one, two, "sft")
    assert_same_training(one, two, "dpo")
    assert said.count("sft: loss ") == 1
    assert read_json(two.folder / "sft" / "manifest.json")["measures"]["steps"] == 3


def test_sigterm_to_the_launcher_stops_both_processes_and_the_same_command_goes_on(tiny_run: Runs) -> None:
    context = tiny_run(sft={"max_steps": 40, **DROPOUT})
    process = start_and_rest(context, "sft")
    children = _children(process.pid)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[1]

    assert process.returncode == 75, said
    assert said.count("a checkpoint of step") == 1
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert len(children) == 2
    assert not (context.folder / "sft" / "manifest.json").exists()
    undisturbed = copy_run(context, "undisturbed")
    finish(start(context, "sft"))
    finish(start(undisturbed, "sft"))
    assert len(losses(context, "sft")) == 40
    assert losses(context, "sft") == losses(undisturbed, "sft")


def test_a_mistake_ends_every_process_with_its_exit_code(tiny_run: Runs) -> None:
    context = tiny_run()
    process = start(context, "dpo")  # sft has not run
    result, said = process.communicate(timeout=120)

    assert process.returncode == 78
    assert result == "", "libraries of several processes speak there"
    assert said.count('No finished "sft" stage') == 1


def _children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(child) for child in found.split()]


def test_one_process_trains_on_one_gpu_however_many_it_sees(tmp_path: Path) -> None:
    from transformers import TrainingArguments

    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    arguments._n_gpu = 4  # as transformers counts on a machine with four

    assert together.on_one_gpu(arguments).n_gpu == 1
    assert arguments.train_batch_size == arguments.per_device_train_batch_size


def test_a_file_that_the_first_process_is_writing_is_not_copied_by_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_run: Runs
) -> None:
    from jobs.common.stage import StagePlan, open_stage

    with open_stage(tiny_run(), StagePlan("sft", {}, (), "cuda")) as stage:
        assert stage is not None
        (stage.folder / "before.json").write_text("{}")
        (stage.folder / ".before.json.1.tmp").write_text("{")
        monkeypatch.setattr(together, "_tell", lambda _: stage)

        with together._beside() as beside:
            assert beside is not None
            names = {path.name for path in beside.folder.iterdir()}

    assert names == {"begun.json", "before.json", "checkpoints"}
