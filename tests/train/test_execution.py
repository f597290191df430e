"""What "auto" comes to on a machine, and that a resumed stage keeps it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.common.errors import ConfigError
from jobs.common.memory import GIB
from jobs.common.model_shape import KNOWN
from jobs.common.stage import OpenStage, StagePlan, open_stage
from jobs.train import execution, room
from jobs.train.device import Device
from jobs.train.execution import choose_execution
from jobs.train.room import memory_bytes
from tests.train.builders import make_context

SMOL = KNOWN["HuggingFaceTB/SmolLM2-1.7B-Instruct"]
MISTRAL = KNOWN["mistralai/Mistral-7B-v0.1"]
GPU = Device("cuda", "NVIDIA A10")
ROWS = SimpleNamespace(longest=1024, tokens=200_000, rows=[None] * 800)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[OpenStage]:
    with open_stage(make_context(tmp_path), StagePlan("sft", {}, (), "cpu")) as opened:
        assert opened is not None
        yield opened


def choose(stage: OpenStage, monkeypatch: pytest.MonkeyPatch, gib: float, shape: Any = SMOL, **changes: Any) -> Any:
    monkeypatch.setattr(execution, "memory_bytes", lambda _: gib * GIB)
    monkeypatch.setattr(execution, "can_compile", lambda: False)
    settings = stage.context.recipe.sft.model_copy(update=changes)
    return choose_execution(stage, settings, shape, GPU, ROWS)


def test_a_small_gpu_gets_smaller_passes_or_recomputes_and_a_large_one_does_not(
    stage: OpenStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = choose(stage, monkeypatch, 79)
    (stage.folder / "execution.json").unlink()
    small = choose(stage, monkeypatch, 6)

    assert (large.precision, large.gradient_checkpointing) == ("bf16", False)
    assert large.micro_batch_tokens > small.micro_batch_tokens or small.gradient_checkpointing
    assert small.micro_batch_tokens >= 1024, "the longest row fits"


def test_what_fits_no_way_says_so_with_the_next_command(stage: OpenStage, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"sft: 7\.2 billion parameters .*12\.0 GiB .*--set sft.quantization=nf4"):
        choose(stage, monkeypatch, 12, shape=MISTRAL)
    assert not (stage.folder / "execution.json").exists()


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({"gradient_checkpointing": False}, "--set sft.gradient_checkpointing=auto"),
        ({"quantization": "nf4"}, "--redo --set sft.max_length=512"),
    ],
)
def test_what_fits_no_way_never_advises_what_is_set_already(
    stage: OpenStage, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], change: str
) -> None:
    with pytest.raises(ConfigError) as stopped:
        choose(stage, monkeypatch, 3, shape=MISTRAL, **settings)
    assert str(stopped.value).endswith(f"Run: cai sft --run r {change}")


def test_a_named_setting_is_taken_and_the_other_chosen(stage: OpenStage, monkeypatch: pytest.MonkeyPatch) -> None:
    found = choose(stage, monkeypatch, 79, micro_batch_tokens=3000, gradient_checkpointing=True, precision="fp32")

    assert (found.micro_batch_tokens, found.gradient_checkpointing, found.precision) == (3000, True, "fp32")


def test_it_is_read_back_whatever_the_memory_is_now(stage: OpenStage, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = choose(stage, monkeypatch, 79)

    assert choose(stage, monkeypatch, 6) == begun


def test_another_device_goes_on_in_the_precision_it_began_with_and_says_so(
    stage: OpenStage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    choose(stage, monkeypatch, 79)
    cpu = Device("cpu", "cpu (2 threads)")

    found = choose_execution(stage, stage.context.recipe.sft, SMOL, cpu, ROWS)

    assert (found.precision, found.device) == ("bf16", "cpu (2 threads)")
    assert "sft: began on NVIDIA A10, goes on on cpu (2 threads)" in capsys.readouterr().err


def test_layers_are_compiled_where_the_run_is_long_enough_to_win_the_time_back(
    stage: OpenStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiled(epochs: float, possible: bool = True, gpu: Device = GPU) -> bool:
        monkeypatch.setattr(execution, "memory_bytes", lambda _: 24 * GIB)
        monkeypatch.setattr(execution, "can_compile", lambda: possible)
        (stage.folder / "execution.json").unlink(missing_ok=True)
        settings = stage.context.recipe.sft.model_copy(update={"epochs": epochs})
        return choose_execution(stage, settings, SMOL, gpu, ROWS).compiled

    assert not compiled(epochs=1)
    assert compiled(epochs=50)
    assert not compiled(epochs=50, possible=False)
    assert not compiled(epochs=50, gpu=Device("cuda", "some card"))


def test_a_stage_that_began_compiled_says_what_is_missing_where_nothing_can_be_compiled(
    stage: OpenStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = choose(stage, monkeypatch, 24)
    asked = json.loads((stage.folder / "execution.json").read_text())["asked"]
    execution.write_execution(stage.folder, replace(begun, compiled=True), asked)

    with pytest.raises(ConfigError, match=r"execution.json: sft began with compiled layers.*gcc libpython3-dev"):
        choose(stage, monkeypatch, 24)


def test_the_memory_of_a_container_is_its_limit_less_what_it_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text("3000\n")
    (tmp_path / "memory.current").write_text("1000\n")
    monkeypatch.setattr(room, "CGROUP", tmp_path)
    assert memory_bytes("cpu") == 2000
    (tmp_path / "memory.stat").write_text("anon 300\nfile 700\ninactive_file 600\nactive_file 100\n")
    assert memory_bytes("cpu") == 2600, "files read lately make room when it is needed"

    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:  5 kB\n")
    monkeypatch.setattr(room, "MEMINFO", tmp_path / "meminfo")
    assert memory_bytes("cpu") == 5 * 1024


def test_execution_json_names_what_was_asked_and_what_it_came_to(
    stage: OpenStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(stage, monkeypatch, 79)

    found = json.loads((stage.folder / "execution.json").read_text())

    assert found["asked"] == {"precision": "auto", "micro_batch_tokens": "auto", "gradient_checkpointing": "auto"}
    assert isinstance(found["micro_batch_tokens"], int)
