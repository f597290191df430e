"""What the plan would have said of a training run, beside what was measured."""

from __future__ import annotations

from typing import Any

from jobs.common.console import say
from jobs.common.flops import causal_context
from jobs.common.memory import Load
from jobs.common.model_shape import shape_of
from jobs.common.predicted import Ran, predicted_beside_real
from jobs.train.device import Device
from jobs.train.divided import parts
from jobs.train.history import tokens_seen
from jobs.train.loop import Trained


def beside(trainer: Any, trained: Trained, device: Device) -> dict[str, Any]:
    """Say it in one line; returns the figures for the manifest, none where this process trained no step.

    Args:
        trainer: a `Stepping` trainer that is done.
        trained: what its loop left.
        device: where it ran.
    """
    from jobs.train.meter import gpu_memory_bytes

    steps, keeper = trainer.steps, trainer.keeper
    before = [entry for entry in trained.history if entry["step"] <= (trained.resumed_from or 0)]
    tokens = (tokens_seen(trained.history) - tokens_seen(before)) / trainer.accelerator.num_processes
    if not keeper.heaviest or not tokens:
        return {}
    positions = sum(steps.sizes)
    ran = Ran(
        keeper.stage.plan.name,
        heaviest_load(trainer, device),
        context=causal_context(steps.sizes),
        positions=round(tokens * positions / sum(steps.tokens)),  # a pair's prompt may be laid down once
        steps=trainer.state.global_step - (trained.resumed_from or 0),
        train_s=trained.train_s,
        device_name=device.name,
        peak_bytes=gpu_memory_bytes(),
    )
    figures = predicted_beside_real(ran)
    say(figures.line)
    return {"predicted": figures.for_manifest}


def heaviest_load(trainer: Any, device: Device) -> Load:
    """The heaviest pass that a trainer ran.

    Args:
        trainer: a `Stepping` trainer that is done.
        device: where it ran.
    """
    steps, keeper = trainer.steps, trainer.keeper
    return Load(
        shape_of(trainer.model.config.to_dict()),
        lora_rank=trainer.model.peft_config["default"].r,
        micro_batch_tokens=keeper.heaviest,
        quantization=getattr(keeper.stage.context.recipe, keeper.stage.plan.name).quantization,
        precision=keeper.execution.precision,
        gradient_checkpointing=keeper.execution.gradient_checkpointing,
        compiled=keeper.execution.compiled,
        scored_share=steps.scored / sum(steps.sizes),
        device=device.kind,  # type: ignore[arg-type]
        divided=parts(),
    )
