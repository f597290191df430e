"""What `cai plan` says of a GPU is what the trainer chooses on it, for the same rows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from jobs.common.gpus import GPUS
from jobs.common.memory import GIB
from jobs.common.model_shape import KNOWN
from jobs.common.predicted import Ran, predicted_beside_real
from jobs.common.settings import SftSettings
from jobs.common.stage import StagePlan, open_stage
from jobs.prepare.train_plan_cost import START_S, Stage, forecast
from jobs.prepare.train_plan_rows import Length, Rows
from jobs.train import execution
from jobs.train.device import Device
from jobs.train.execution import choose_execution
from tests.train.builders import make_context

SMOL = KNOWN["HuggingFaceTB/SmolLM2-1.7B-Instruct"]
DRIVER_NAMES = {"RTX-4090": "NVIDIA GeForce RTX 4090", "L4": "NVIDIA L4", "H100": "NVIDIA H100 80GB HBM3"}
COUNTS = (20, 150, 800, 5000, 40_000)


@pytest.mark.parametrize("gpu_name", DRIVER_NAMES)
@pytest.mark.parametrize("section", ["sft", "dpo"])
@pytest.mark.parametrize("model", ["HuggingFaceTB/SmolLM2-1.7B-Instruct", "mistralai/Mistral-7B-v0.1"])
def test_plan_and_trainer_compile_the_same_stages(
    gpu_name: str, section: Literal["sft", "dpo"], model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu, shape = next(it for it in GPUS if it.name == gpu_name), KNOWN[model]
    monkeypatch.setattr(execution, "memory_bytes", lambda _: gpu.memory_bytes)
    monkeypatch.setattr(execution, "can_compile", lambda: True)
    compiled = []
    for count in COUNTS:
        context = make_context(tmp_path, f"r{count}", **{section: {"quantization": "nf4"}})
        settings = getattr(context.recipe, section)
        lengths = [Length(40 + at % 7, (300 + at % 50,) * (1 if section == "sft" else 2)) for at in range(count)]
        longest = max(it.positions for it in lengths)
        planned = forecast(Stage(section, settings, Rows(lengths, 0, [], "generate", longest), shape, 16), gpu)
        chosen = _choose(context, section, lengths, shape, DRIVER_NAMES[gpu_name])
        assert planned
        assert planned.compiled == chosen.compiled
        if section == "sft":  # the trainer makes room for a pair's prompt twice
            assert (planned.tokens, planned.checkpointing) == (chosen.micro_batch_tokens, chosen.gradient_checkpointing)
        compiled.append(chosen.compiled)
    assert compiled == sorted(compiled), "more rows never stop paying"
    assert set(compiled) == {False, True}


def test_processes_share_the_rows_so_compiling_pays_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "memory_bytes", lambda _: 24 * GIB)
    monkeypatch.setattr(execution, "can_compile", lambda: True)
    lengths = [Length(40, (300,))] * 3000

    def compiled(processes: int) -> bool:
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        context = make_context(tmp_path, f"r{processes}")
        return bool(_choose(context, "sft", lengths, SMOL, "NVIDIA L4").compiled)

    assert compiled(1)
    assert not compiled(8)


@pytest.mark.parametrize("count", COUNTS)
def test_the_plans_minutes_are_those_a_run_says_were_predicted(count: int) -> None:
    gpu, settings = next(it for it in GPUS if it.name == "L4"), SftSettings(batch_size=4)
    stage = Stage("sft", settings, Rows([Length(40, (300,))] * count, 0, [], "generate", 340), SMOL, 16)
    planned = forecast(stage, gpu)
    assert planned
    assert planned.seconds
    ran = Ran("sft", planned.load, stage.rows.context, round(stage.positions), stage.steps, 1.0, "NVIDIA L4", None)
    predicted = predicted_beside_real(ran).for_manifest["minutes"]["predicted"]
    assert predicted
    assert planned.seconds - START_S == pytest.approx(predicted * 60, abs=0.1)


def _choose(context: Any, section: str, lengths: list[Length], shape: Any, driver_name: str) -> Any:
    tokens = [it.prompt * len(it.answers) + sum(it.answers) for it in lengths]
    rows = SimpleNamespace(rows=lengths, tokens=sum(tokens), longest=max(tokens))
    with open_stage(context, StagePlan(section, {}, (), "cpu")) as opened:
        assert opened is not None
        return choose_execution(opened, getattr(context.recipe, section), shape, Device("cuda", driver_name), rows)
