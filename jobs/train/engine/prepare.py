"""Make a model with LoRA adapters ready for packed training."""

from __future__ import annotations

from typing import Any

from jobs.train.engine.forward import install_head
from jobs.train.engine.layers import group_layers
from jobs.train.engine.lora import fuse_lora


def prepare_model(model: Any, compiled: bool, sharded: bool = False) -> None:
    """Give the model fused LoRA layers, the packed head and, where asked, compiled decoder layers.

    Args:
        model: a causal language model with its adapters attached, not yet wrapped for several processes.
        compiled: compile each decoder layer with torch.compile; one compilation serves them all.
        sharded: weights will be divided among processes (FSDP), so none may share memory.

    Raises:
        ConfigError: the model's head is of a kind that the packed path does not know.
    """
    fuse_lora(model)
    if next(model.parameters()).is_cuda and not sharded:  # a CPU gains nothing from fewer, larger products
        group_layers(model)
    install_head(model, compiled)
    if compiled:
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        for layer in base.base_model.layers:
            layer.compile(dynamic=True)
