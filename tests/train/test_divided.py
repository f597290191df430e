"""Weights that are divided among processes (FSDP): what is refused, what is planned, and where the model is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import MistralConfig

from jobs.common.errors import ConfigError, StoppedError
from jobs.common.fitting import fit_to
from jobs.common.memory import GIB, Load, peak_bytes
from jobs.common.model_shape import KNOWN
from jobs.common.stage import RunContext, StagePlan, open_stage
from jobs.train import execution, launch, start
from jobs.train.beside import heaviest_load
from jobs.train.device import Device
from jobs.train.divided import REQUIRED, require_divisible
from jobs.train.engine.pack import PairIds
from jobs.train.execution import Execution
from jobs.train.keeper import Keeper
from jobs.train.student import Student, load_model
from tests.train import test_together
from tests.train.builders import make_context
from tests.train.test_reference import KEY, pairs

FSDP = test_together.ROOT / "recipes" / "accelerate" / "fsdp.yaml"
MISTRAL = KNOWN["mistralai/Mistral-7B-v0.1"]


def shipped() -> dict[str, str]:
    """What our configuration comes to in the environment."""
    found, count = launch._environment(str(FSDP))
    return {name: value for name, value in found.items() if os.environ.get(name) != value} | {"WORLD_SIZE": str(count)}


@pytest.fixture
def divided(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in shipped().items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_the_shipped_configuration_is_taken_and_says_everything_that_is_required(
    tmp_path: Path, divided: pytest.MonkeyPatch
) -> None:
    require_divisible(make_context(tmp_path), "sft")

    assert {name: os.environ.get(name) for name in REQUIRED} == REQUIRED


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("FSDP_VERSION", "1", r"fsdp_version: 1; .* needs 2\. Run: .*fsdp\.yaml dpo --run r"),
        ("FSDP_RESHARD_AFTER_FORWARD", "false", r"fsdp_reshard_after_forward: false; .* needs true"),
        ("FSDP_OFFLOAD_PARAMS", "true", r"fsdp_offload_params: true; .* needs false"),
        ("FSDP_ACTIVATION_CHECKPOINTING", "true", r"fsdp_activation_checkpointing: true"),
        ("FSDP_CPU_RAM_EFFICIENT_LOADING", "true", r"fsdp_cpu_ram_efficient_loading: true"),
        ("FSDP_AUTO_WRAP_POLICY", "SIZE_BASED_WRAP", r"needs TRANSFORMER_BASED_WRAP"),
        ("ACCELERATE_MIXED_PRECISION", "bf16", r"mixed_precision: bf16; .* needs no\."),
        ("WORLD_SIZE", "1", r"num_processes is 1, .* Run: cai dpo --run r"),
    ],
)
def test_another_configuration_of_accelerate_is_refused_by_name(
    tmp_path: Path, divided: pytest.MonkeyPatch, name: str, value: str, line: str
) -> None:
    divided.setenv(name, value)

    with pytest.raises(ConfigError, match=line):
        require_divisible(make_context(tmp_path), "dpo")


def test_a_stage_that_began_with_compiled_layers_does_not_go_on_over_divided_ones(
    tmp_path: Path, divided: pytest.MonkeyPatch
) -> None:
    card = Device("cuda", "NVIDIA A10")
    begun = Execution("bf16", 2048, False, "sdpa", compiled=True, device=card.name)
    divided.setattr(execution, "can_compile", lambda: True)
    with open_stage(make_context(tmp_path), StagePlan("sft", {}, (), "cpu")) as stage:
        assert stage is not None
        settings = stage.context.recipe.sft
        execution.write_execution(stage.folder, begun, {name: getattr(settings, name) for name in execution.ASKED})

        with pytest.raises(ConfigError, match=r"began with compiled layers.* anew: .*fsdp\.yaml sft .*--redo"):
            execution.choose_execution(stage, settings, MISTRAL, card, None)


def test_layers_of_divided_weights_are_not_compiled_however_long_the_run(
    tmp_path: Path, divided: pytest.MonkeyPatch
) -> None:
    rows = SimpleNamespace(longest=1024, tokens=200_000_000, rows=[None] * 800_000)
    divided.setattr(execution, "can_compile", lambda: True)
    divided.setattr(execution, "memory_bytes", lambda _: 79 * GIB)
    with open_stage(make_context(tmp_path), StagePlan("sft", {}, (), "cpu")) as stage:
        assert stage is not None
        card = Device("cuda", "NVIDIA A10")

        assert not execution.choose_execution(stage, stage.context.recipe.sft, MISTRAL, card, rows).compiled
        divided.delenv("ACCELERATE_USE_FSDP")
        (stage.folder / "execution.json").unlink()
        assert execution.choose_execution(stage, stage.context.recipe.sft, MISTRAL, card, rows).compiled


def test_plan_and_figures_count_the_same_part_of_the_weights(tmp_path: Path, divided: pytest.MonkeyPatch) -> None:
    planned: list[Load] = []

    def fit(load: Load, *_: Any) -> tuple[int, bool]:
        planned.append(load)
        return 2048, False

    rows = SimpleNamespace(longest=1024, tokens=2000, rows=[None] * 2)
    divided.setattr(execution, "memory_bytes", lambda _: 79 * GIB)
    divided.setattr(execution, "fit_to", fit)
    card = Device("cuda", "NVIDIA A10")
    with open_stage(make_context(tmp_path), StagePlan("sft", {}, (), "cpu")) as stage:
        assert stage is not None
        settings = stage.context.recipe.sft.model_copy(update={"micro_batch_tokens": "auto"})
        chosen = execution.choose_execution(stage, settings, MISTRAL, card, rows)
        trainer = SimpleNamespace(
            steps=SimpleNamespace(sizes=[1024, 1024], scored=512),
            keeper=Keeper(stage, chosen, heaviest=1024),
            model=SimpleNamespace(config=MistralConfig(), peft_config={"default": SimpleNamespace(r=16)}),
        )
        ran = heaviest_load(trainer, card)
        divided.setenv("ACCELERATE_USE_FSDP", "false")

        assert (planned[0].divided, ran.divided) == (2, 2)
        assert heaviest_load(trainer, card).divided == 1
        assert ran.scored_share == 0.25


def test_a_gpu_that_holds_its_weights_whole_is_asked_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")

    require_divisible(make_context(tmp_path, sft={"quantization": "nf4"}), "sft")


def test_four_bit_weights_are_refused_once_before_the_stage_opens(tiny_run: Callable[..., RunContext]) -> None:
    context = tiny_run(sft={"quantization": "nf4"}, dpo={"quantization": "nf4"})
    process = test_together.start(context, "sft", FSDP)
    said = process.communicate(timeout=120)[1]

    assert process.returncode == 78, said
    assert said.count("weights in 4 bits cannot be divided among processes") == 1
    assert "Run: python -m jobs.train.launch recipes/accelerate/ddp.yaml sft --run" in said
    assert not (context.folder / "sft").exists()


def test_the_weights_to_be_divided_are_read_into_the_memory_of_the_machine(
    students: Callable[[str], Path], divided: pytest.MonkeyPatch
) -> None:
    student = Student(students("chatml"), "tiny", "1", "chatml", "again")

    model = load_model(student, "none", Device("cuda", "a card that is too small"), "bf16", "sdpa")

    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}


def test_a_process_with_fewer_pairs_takes_part_in_every_pass_and_all_stop_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[Any] = []

    def scored(_model: Any, given: list[PairIds], _how: Any) -> Iterator[Any]:
        for at, pair in enumerate(given):
            passes.append(pair)
            yield [at], [torch.zeros(1)], [torch.zeros(1)]

    def asked_of(stop: float) -> start.Reference:
        many = SimpleNamespace(
            num_processes=2,
            device="cpu",
            gather=lambda own: torch.cat([own, torch.tensor([4])]),
            reduce=lambda flags, _: flags + stop,
        )
        watch = SimpleNamespace(flag=SimpleNamespace(asked=False), progress=SimpleNamespace(update=lambda *_: None))
        model = SimpleNamespace(eval=lambda: None)
        return start.Reference(tmp_path, KEY, model, None, watch, many, "")  # type: ignore[arg-type]

    monkeypatch.setattr(start, "scored", scored)
    monkeypatch.setattr(start, "pass_count", lambda given, _: len(given))

    assert len(list(asked_of(0)._compute(pairs(1)))) == 1
    assert passes == [*pairs(1), *[start.NOTHING] * 3]

    passes.clear()
    stopped = asked_of(1)
    with pytest.raises(StoppedError, match="is kept"):
        list(stopped._compute([]))
    assert stopped.watch.flag.asked, "in the process that got no signal, too"
    assert passes == [start.NOTHING]


def test_what_no_card_holds_fits_several() -> None:
    def fits(divided: int) -> Any:
        return fit_to(Load(MISTRAL, 16, 2048, divided=divided), 12 * GIB)

    assert [fits(count) is not None for count in (1, 2, 4)] == [False, True, True]
    assert fits(4) >= fits(2)


def test_divided_weights_take_their_part_and_what_is_whole_at_once() -> None:
    whole, half = (peak_bytes(Load(MISTRAL, 16, 2048, divided=count)) for count in (1, 2))

    assert whole.weights / 2 < half.weights < whole.weights
    assert half.optimizer == whole.optimizer / 2
    assert (half.activations, half.logits, half.gradients) == (whole.activations, whole.logits, whole.gradients)
