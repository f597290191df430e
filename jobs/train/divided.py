"""Weights that are divided among processes (FSDP2, PyTorch's `fully_shard`; arXiv 2304.11277), layer by layer.

    divide(trainer)               # every process keeps its part; all later passes put one layer at a time together
    whole(value), part_of(...)    # between a divided tensor and the whole one

The model is read into CPU memory and goes to the GPU divided, so it may be larger than one card. It is divided when the
trainer is set up, before anything runs: the start guards, the reference and every evaluation see it as training does.
Checkpoints hold whole values, in the files that one process would write.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jobs.common.context import RunContext
from jobs.common.errors import ConfigError

OPTIMIZER, SCHEDULER = "optimizer.pt", "scheduler.pt"
"""The trainer's names of a checkpoint's files."""

REQUIRED = {
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_ACTIVATION_CHECKPOINTING": "false",  # the recipe's gradient_checkpointing decides
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    "ACCELERATE_MIXED_PRECISION": "no",  # the recipe's precision decides
}
"""What accelerate's configuration must say, by the names it goes by in the environment."""


def processes() -> int:
    """How many processes run this stage, as the launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def dividing() -> bool:
    """Whether accelerate's configuration asks that weights be divided."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def parts() -> int:
    """Among how many processes the weights of this stage are divided; 1 where each holds them whole."""
    return processes() if dividing() else 1


def require_divisible(context: RunContext, section: str) -> None:
    """Refuse what cannot be trained over divided weights; nothing where none are.

    Raises:
        ConfigError: weights in 4 bits, a single process, or a setting of accelerate that is not as in fsdp.yaml.
    """
    if not dividing():
        return
    if getattr(context.recipe, section).quantization != "none":
        raise ConfigError(
            f"{section}: weights in 4 bits cannot be divided among processes (FSDP); where every GPU holds them whole "
            f"they train. Run: {launched(context, section, 'ddp')}"
        )
    if processes() == 1:
        raise ConfigError(
            f"{section}: num_processes is 1, and one process has nobody to divide weights with (FSDP). "
            f"Run: {context.command(section)}"
        )
    for name, wanted in REQUIRED.items():
        found = os.environ.get(name, "not set")
        if found.lower() != wanted.lower():
            raise ConfigError(
                f"{section}: accelerate's configuration has {name.lower().removeprefix('accelerate_')}: {found}; "
                f"training over divided weights needs {wanted}. Run: {launched(context, section, 'fsdp')}"
            )


def launched(context: RunContext, section: str, how: str, *more: str) -> str:
    """The command line that runs a stage in several processes, with one of our own configurations: `ddp` or `fsdp`."""
    command = context.command(section, *more).removeprefix("cai ")
    return f"python -m jobs.train.launch recipes/accelerate/{how}.yaml {command}"


def compiled_line(context: RunContext, section: str) -> str:
    """What to say of a stage that began with whole, compiled layers and is to go on with divided ones."""
    return (
        f"{section}: began with compiled layers, which divided weights (FSDP) cannot have. Go on as it began, or begin "
        f"anew: {launched(context, section, 'fsdp', '--redo')}"
    )


def divide(trainer: Any) -> None:
    """Divide a trainer's model, and make its optimizer for the parts; once, before any pass.

    Args:
        trainer: its model is whole, with adapters, and prepared for packed passes.
    """
    trainer.create_optimizer()
    prepared = trainer.accelerator.prepare(trainer.model, trainer.optimizer)
    trainer.model, trainer.optimizer = prepared
    trainer.model_wrapped = trainer.model
    # The loop asks again. Accelerate would then tell parameters apart by address, and parts without rows have none.
    trainer.accelerator.prepare = lambda *_: prepared


def is_divided(value: Any) -> bool:
    """Whether other processes hold parts of a tensor."""
    return hasattr(value, "full_tensor")


def held_share(model: Any) -> float:
    """Share of a model's weights that this process holds: 1 where they are not divided."""
    for module in model.modules():
        if hasattr(module, "reshard"):
            module.reshard()  # the last pass may have left the head whole
    weights = list(model.parameters())
    held = sum((weight.to_local() if is_divided(weight) else weight).numel() for weight in weights)
    return float(held / sum(weight.numel() for weight in weights))


def whole(value: Any) -> Any:
    """A tensor put together; every process must ask. What is not divided stays as it is."""
    return value.full_tensor() if is_divided(value) else value


def part_of(value: Any, like: Any) -> Any:
    """This process's part of a whole tensor, divided as `like` is."""
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


class WholeCheckpoints:
    """Mixin before a trainer whose weights may be divided: its checkpoints have the files of one process."""

    def save_model(self: Any, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the adapter. The trainer would put all frozen weights together for it."""
        from jobs.train.adapters import whole_values

        if not self.is_fsdp_enabled:
            super().save_model(output_dir, _internal_call)  # type: ignore[misc]
            return
        values = whole_values(self.model)
        if self.args.should_save:
            self._save(output_dir, state_dict=values)

    def _save_optimizer_and_scheduler(self: Any, output_dir: str) -> None:
        import torch
        from torch.utils import _pytree

        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(output_dir)  # type: ignore[misc]
            return
        state = _pytree.tree_map(whole, self.optimizer.state_dict())
        if self.args.should_save:
            torch.save(state, Path(output_dir, OPTIMIZER))
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir, SCHEDULER))

    def _load_from_checkpoint(self: Any, resume_from_checkpoint: str, model: Any = None) -> None:
        from jobs.train.adapters import load_values

        if self.is_fsdp_enabled:
            load_values(self.model, Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]

    def _load_optimizer_and_scheduler(self: Any, checkpoint: str | None) -> None:
        import torch

        if checkpoint is None or not self.is_fsdp_enabled:
            super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
            return
        state = torch.load(Path(checkpoint, OPTIMIZER), map_location="cpu", weights_only=True)
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        for number, values in state["state"].items():
            like = parameters[number]
            for name, value in values.items():
                if value.shape == like.shape:  # the moments; `step` is one number
                    values[name] = part_of(value.to(like.device), like)
        self.optimizer.load_state_dict(state)
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint, SCHEDULER), weights_only=True))
