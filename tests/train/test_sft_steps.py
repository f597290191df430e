"""An optimizer step of SFT: exact whatever its passes, and the same step again after a stop, a resume or no memory."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.common.errors import ConfigError, DataError, StoppedError
from jobs.common.jsonl import read_json
from jobs.common.stage import RunContext
from jobs.train import adapters, sft, verify, watch
from jobs.train.device import choose_device, libraries
from jobs.train.keeper import Keeper
from jobs.train.loop import Loop
from jobs.train.probe import probe
from jobs.train.randomness import get_randomness
from jobs.train.sft_trainer import PackedSftTrainer
from jobs.train.student import find_student, load_model, load_tokenizer
from jobs.train.watch import Watch
from tests.train.stopped import adapter_sha256, copy_run, stop_after

Runs = Callable[..., RunContext]


class BuiltError(Exception):
    """Ends a stage when its trainer is ready."""


def built_trainer(context: RunContext, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The trainer a stage would run, before its first step."""
    found: list[Any] = []

    def take(loop: Loop, **_: Any) -> None:
        found.append(loop.trainer)
        raise BuiltError

    with monkeypatch.context() as patch:
        patch.setattr(sft, "run_loop", take)
        with pytest.raises(BuiltError):
            sft.run(context)
    trainer = found[0]
    trainer.create_optimizer_and_scheduler(10)
    trainer.state.max_steps = 10
    return trainer


def log(context: RunContext) -> list[dict[str, Any]]:
    lines = (context.folder / "sft" / "log.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "tokens_per_s"} for line in lines]


def changed(context: RunContext, **settings: Any) -> RunContext:
    section = context.recipe.sft.model_copy(update=settings)
    return replace(context, recipe=context.recipe.model_copy(update={"sft": section}))


def plain_trl(context: RunContext, rows: list[dict[str, Any]], start: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """Loss and gradients of TRL's own trainer on the same rows as one padded batch."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from jobs.common.fetched import load_fetched

    student, settings = find_student(context, load_fetched(context)), context.recipe.sft
    base = load_model(student, settings.quantization, choose_device(), "fp32", "sdpa")
    model = adapters.new_adapter(base, settings.lora, 0)
    arguments = SFTConfig(
        output_dir=str(context.folder / "plain"),
        max_length=settings.max_length,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
    )
    trainer = SFTTrainer(
        model, arguments, train_dataset=Dataset.from_list(rows), processing_class=load_tokenizer(student)
    )
    adapters.restore(trainer.model, start)
    batch = trainer.data_collator(
        [{name: row[name] for name in ("input_ids", "labels")} for row in trainer.train_dataset]
    )
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return float(loss.detach()), {name: value.grad for name, value in adapters.weights(trainer.model).items()}


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_step_of_several_passes_has_the_loss_and_gradients_of_trls_padded_batch(
    tiny_run: Runs, monkeypatch: pytest.MonkeyPatch, quantization: str, checkpointing: bool
) -> None:
    context = tiny_run(sft={"quantization": quantization, "gradient_checkpointing": checkpointing})
    ours = built_trainer(context, monkeypatch)
    for name, value in adapters.weights(ours.model).items():
        if "lora_B" in name:  # zero at the start, which would hide every error of lora_A
            torch.nn.init.normal_(value, std=0.05, generator=torch.Generator().manual_seed(1))
    rows = [dict(row) for row in ours.train_dataset.select_columns(["prompt", "completion"])]

    loss = ours.training_step(ours.model, list(range(8)))

    with libraries("sft", "r"):
        expected, gradients = plain_trl(context, rows, adapters.snapshot(ours.model))
    assert float(loss) == pytest.approx(expected, abs=1e-6)
    for name, value in adapters.weights(ours.model).items():
        assert torch.allclose(value.grad, gradients[name], atol=1e-6), name
        assert gradients[name].abs().max() > 1e-4, "the comparison is of something"


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stop_in_the_second_epoch_resumes_to_the_same_bits_losses_and_counters(
    tiny_run: Runs, monkeypatch: pytest.MonkeyPatch, quantization: str, precision: str
) -> None:
    settings = {"batch_size": 3, "epochs": 2, "max_steps": None, "quantization": quantization, "precision": precision}
    undisturbed = tiny_run(sft=settings)
    stopped = copy_run(undisturbed, "stopped")
    sft.run(undisturbed)
    with monkeypatch.context() as patch:
        stop_after(patch, 8)
        with pytest.raises(StoppedError, match="a checkpoint of step 4 is saved"):
            sft.run(stopped)

    sft.run(stopped)

    assert adapter_sha256(stopped, "sft") == adapter_sha256(undisturbed, "sft")
    assert log(stopped) == log(undisturbed)
    steps = [line for line in log(stopped) if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[2]["num_tokens"] == read_json(stopped.folder / "sft" / "manifest.json")["tokens"]["rows"]
    assert steps[5]["num_tokens"] == 2 * steps[2]["num_tokens"]
    assert {line["rows"] for line in steps[:3]} != {line["rows"] for line in steps[3:]}, "each epoch has its own order"


def test_a_stop_while_evaluating_saves_the_step_before_it(tiny_run: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    dropout = {"rank": 4, "alpha": 8, "dropout": 0.2}  # so that a step draws numbers
    undisturbed = tiny_run(sft={"max_steps": 4, "evaluations": 1, "lora": dropout})
    stopped = copy_run(undisturbed, "stopped")
    sft.run(undisturbed)
    with monkeypatch.context() as patch:
        measure = PackedSftTrainer.measure_held_out

        def measured(self: PackedSftTrainer) -> dict[str, float]:
            if self.state.global_step:
                os.kill(os.getpid(), signal.SIGTERM)
            return measure(self)

        patch.setattr(PackedSftTrainer, "measure_held_out", measured)
        with pytest.raises(StoppedError, match="a checkpoint of step 2 is saved"):
            sft.run(stopped)

    sft.run(stopped)

    assert adapter_sha256(stopped, "sft") == adapter_sha256(undisturbed, "sft")
    assert log(stopped) == log(undisturbed), "the evaluation is made again"


def test_evaluations_are_spread_over_the_run_and_change_nothing(tiny_run: Runs) -> None:
    context = tiny_run(sft={"max_steps": 9, "evaluations": 2, "lora": {"rank": 4, "alpha": 8, "dropout": 0.1}})
    without = copy_run(context, "without")
    sft.run(context)
    sft.run(changed(without, evaluations=0))

    assert [line["step"] for line in log(context) if "held_out/loss" in line] == [0, 3, 6, 9]
    assert [line["step"] for line in log(without) if "held_out/loss" in line] == [0, 9]
    assert adapter_sha256(context, "sft") == adapter_sha256(without, "sft")
    measures = read_json(context.folder / "sft" / "manifest.json")["measures"]
    assert [step for step, _ in measures["held_out_losses"]] == [3, 6, 9]
    assert measures["held_out_after"]["loss/ubuntu"] == measures["held_out_loss_after"]


def test_held_out_loss_is_the_mean_over_scored_tokens(tiny_run: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = built_trainer(tiny_run(), monkeypatch)

    measured = trainer.measure_held_out()["loss"]

    total, count = 0.0, 0
    for row in trainer.held_out:
        with torch.no_grad():
            logits = trainer.model(input_ids=torch.tensor([row.ids])).logits[0]
        losses = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(row.ids[1:]), reduction="none")
        (answer,) = row.scored
        total, count = total + float(losses[answer.start - 1 :].sum()), count + len(row.ids) - answer.start
    assert measured == pytest.approx(total / count, abs=1e-5)


def out_of_memory_above(
    monkeypatch: pytest.MonkeyPatch, tokens: int, without_checkpointing: bool = False, from_step: int = 0
) -> None:
    """Every pass of more tokens fails as torch does; or only those that keep activations, or those after a step."""
    pack = PackedSftTrainer.pack_rows

    def failing(self: PackedSftTrainer, indices: list[int]) -> Any:
        recomputed = without_checkpointing and self.keeper.execution.gradient_checkpointing
        if (
            sum(len(self.rows[i].ids) for i in indices) > tokens
            and not recomputed
            and self.state.global_step >= from_step
        ):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return pack(self, indices)

    monkeypatch.setattr(PackedSftTrainer, "pack_rows", failing)


def test_out_of_memory_halves_the_passes_and_does_the_step_again(
    tiny_run: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"max_length": 128, "max_steps": 4, "lora": {"rank": 4, "alpha": 8, "dropout": 0.2}}
    context = tiny_run(sft=settings | {"micro_batch_tokens": 256})
    small = copy_run(context, "small")
    sft.run(changed(small, micro_batch_tokens=128))
    out_of_memory_above(monkeypatch, 128)

    sft.run(context)

    said = capsys.readouterr().err
    assert said.count("out of memory in a forward pass of") == 1
    execution = read_json(context.folder / "sft" / "checkpoints" / "checkpoint-4" / "execution.json")
    assert 64 <= execution["micro_batch_tokens"] <= 128
    assert execution["asked"]["micro_batch_tokens"] == 256
    assert read_json(context.folder / "sft" / "manifest.json")["measures"]["execution"]["micro_batch_tokens"] <= 128
    assert adapter_sha256(context, "sft") == adapter_sha256(small, "sft"), (
        "the same steps, to the bit, random state included"
    )


def kill(*_: object, **__: object) -> None:
    """What kill -9 leaves: nothing more is written."""
    raise BuiltError


STOPS = ["in the step that is done again", "after it", "before it is saved", "while it is saved", "while it is sealed"]


@pytest.mark.parametrize("stop", STOPS)
def test_a_resume_after_memory_ran_out_takes_the_passes_that_were_being_taken(
    tiny_run: Runs, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    settings = {"max_length": 128, "max_steps": 5, "micro_batch_tokens": 256}
    undisturbed = tiny_run(sft=settings | {"lora": {"rank": 4, "alpha": 8, "dropout": 0.2}})
    stopped = copy_run(undisturbed, "stopped")
    out_of_memory_above(monkeypatch, 128, from_step=2)
    make_room, redone = Keeper.make_room, []

    def room(self: Keeper, *given: Any, **named: Any) -> None:
        make_room(self, *given, **named)
        redone.append(self.capacity)
        if stop == "before it is saved":
            patch.setattr(Watch, "on_step_end", kill)
        elif stop == "while it is saved":
            patch.setattr(Keeper, "settle", kill)
        elif stop == "while it is sealed":
            patch.setattr(watch, "seal_checkpoint", kill)
        else:
            stop_after(patch, 1 if stop == "in the step that is done again" else 4)

    sft.run(undisturbed)
    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "make_room", room)
        with pytest.raises((StoppedError, BuiltError)):
            sft.run(stopped)

    sft.run(stopped)

    assert redone, "memory ran out before the stop"
    assert adapter_sha256(stopped, "sft") == adapter_sha256(undisturbed, "sft")
    assert log(stopped) == log(undisturbed)


def test_verify_takes_the_passes_of_the_checkpoint_it_starts_from(
    tiny_run: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lora = {"rank": 4, "alpha": 8, "dropout": 0.2}
    context = tiny_run(sft={"max_length": 128, "max_steps": 6, "micro_batch_tokens": 256, "lora": lora})
    out_of_memory_above(monkeypatch, 128, from_step=5)
    sft.run(context)
    capsys.readouterr()

    verify.run(context, "sft")

    said = capsys.readouterr()
    assert "trained again from checkpoint-2" in said.out
    assert said.err.count("out of memory in a forward pass of") == 1
    begun, ended = (
        read_json(context.folder / "sft" / "checkpoints" / f"checkpoint-{step}" / "execution.json") for step in (2, 6)
    )
    assert begun["micro_batch_tokens"] == 256 > ended["micro_batch_tokens"]


def test_checkpoints_without_an_execution_go_on_with_the_one_the_stage_began_with(
    tiny_run: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = tiny_run(sft={"max_steps": 4, "save_minutes": 1e-9})
    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "settle", lambda *_: None)
        stop_after(patch, 5)
        with pytest.raises(StoppedError):
            sft.run(context)
    path = context.folder / "sft" / "execution.json"
    assert list((context.folder / "sft" / "checkpoints").glob("checkpoint-*"))
    path.write_text(json.dumps(read_json(path) | {"micro_batch_tokens": 333}))

    assert built_trainer(context, monkeypatch).keeper.capacity == 333


def test_a_single_row_that_does_not_fit_turns_checkpointing_on_and_then_gives_up(
    tiny_run: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    context = tiny_run(sft={"max_steps": 1})
    hopeless = copy_run(context, "hopeless")
    with monkeypatch.context() as patch:
        out_of_memory_above(patch, 90, without_checkpointing=True)
        sft.run(context)
    assert "going on with gradient checkpointing" in capsys.readouterr().err
    measured = read_json(context.folder / "sft" / "manifest.json")["measures"]
    assert measured["execution"]["gradient_checkpointing"] is True

    out_of_memory_above(monkeypatch, 90)
    with pytest.raises(
        ConfigError, match=r"a single row of \d+ tokens does not fit .* with gradient checkpointing. Run"
    ):
        sft.run(hopeless)


def test_other_errors_of_a_pass_are_not_taken_for_missing_memory(
    tiny_run: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    context = tiny_run()
    monkeypatch.setattr(PackedSftTrainer, "pack_rows", broken)

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        sft.run(context)


def test_the_probe_leaves_weights_gradients_and_random_state_as_they_were(
    tiny_run: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = built_trainer(tiny_run(sft={"lora": {"rank": 4, "alpha": 8, "dropout": 0.5}}), monkeypatch)
    weights, before = adapters.snapshot(trainer.model), get_randomness()
    out_of_memory_above(monkeypatch, 128)

    probe(trainer)

    assert trainer.keeper.capacity < 256, "it found out before the first step"
    assert torch.equal(get_randomness().torch, before.torch)
    assert all(value.grad is None for value in adapters.weights(trainer.model).values())
    assert all(value.equal(weights[name]) for name, value in adapters.weights(trainer.model).items())


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_no_number_stops_and_keeps_the_checkpoint_before(
    tiny_run: Runs, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    context = tiny_run(sft={"max_steps": 4, "save_minutes": 1e-9})
    original = PackedSftTrainer.micro_batch_loss

    def poisoned(self: PackedSftTrainer, *arguments: Any) -> Any:
        loss = original(self, *arguments)
        if self.state.global_step < 2:
            return loss
        return loss * float("nan") if where == "loss" else Poison.apply(loss)

    monkeypatch.setattr(PackedSftTrainer, "micro_batch_loss", poisoned)

    with pytest.raises(DataError, match=r"sft: step 3: .*\(rows ubuntu-.*Run|run .*--set sft.learning_rate=0.0001"):
        sft.run(context)

    folder = context.folder / "sft"
    assert sorted(path.name for path in (folder / "checkpoints").glob("*checkpoint-*")) == [
        "checkpoint-1",
        "checkpoint-2",
    ]
    assert not (folder / "adapter").exists()
    assert not (folder / "manifest.json").exists()


class Poison(torch.autograd.Function):
    """A finite value with a gradient that is none."""

    @staticmethod
    def forward(ctx: Any, loss: Any) -> Any:  # type: ignore[override]
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:  # type: ignore[override]
        return gradient * float("inf")


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_how_the_passes_are_cut_changes_a_run_by_rounding_alone(tiny_run: Runs, dropout: float) -> None:
    context = tiny_run(sft={"micro_batch_tokens": 4096, "lora": {"rank": 4, "alpha": 8, "dropout": dropout}})
    parted = copy_run(context, "parted")
    recipe = context.recipe.model_copy(
        update={
            "sft": context.recipe.sft.model_copy(update={"micro_batch_tokens": 256, "gradient_checkpointing": True})
        }
    )

    sft.run(context)
    sft.run(RunContext(recipe=recipe, run=parted.run, runs=parted.runs))

    whole, cut = ([line for line in log(run) if "loss" in line] for run in (context, parted))
    assert [line["rows"] for line in whole] == [line["rows"] for line in cut]
    assert [line["loss"] for line in whole] == pytest.approx([line["loss"] for line in cut], abs=1e-5)
    manifests = [read_json(run.folder / "sft" / "manifest.json") for run in (context, parted)]
    assert manifests[0]["fingerprint"] == manifests[1]["fingerprint"]
    assert all(it["measures"]["predicted"]["tokens_per_s"]["real"] > 0 for it in manifests)


def test_a_resume_reads_the_execution_back_and_a_named_one_takes_its_place(
    tiny_run: Runs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    context = tiny_run(sft={"micro_batch_tokens": "auto", "gradient_checkpointing": "auto"})
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(StoppedError):
            sft.run(context)
    path = context.folder / "sft" / "execution.json"
    begun = read_json(path)
    assert (begun["gradient_checkpointing"], begun["precision"]) == (False, "fp32")
    path.write_text(json.dumps(begun | {"micro_batch_tokens": 333}))

    def capacity(run: RunContext) -> int:
        return int(built_trainer(run, monkeypatch).keeper.capacity)

    assert capacity(context) == begun["micro_batch_tokens"], "the checkpoint's"
    assert capacity(changed(context, micro_batch_tokens=512)) == 512
    shutil.rmtree(context.folder / "sft" / "checkpoints")
    path.write_text(json.dumps(begun | {"micro_batch_tokens": 333}))
    assert capacity(context) == 333, "a start from the beginning"
    path.write_text("{}")
    with pytest.raises(DataError, match=r"execution.json is damaged .* Run: cai sft --run r --redo"):
        sft.run(context)
