"""Which passes of LoRA training fit a device's memory. Needs no torch.

fit_to(Load(shape, lora_rank=16, micro_batch_tokens=longest), 24 * GIB)  # (micro_batch_tokens, checkpointing)
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from jobs.common.memory import GIB, Load, peak_bytes

CONTEXT_BYTES = 0.6 * GIB
"""CUDA context, kernels and cuBLAS: taken before the first tensor."""
FREE_SHARE = 0.06
"""Kept free for what the allocator cannot use (fragmentation) and for the model's own error."""

GPU_TOKENS, CPU_TOKENS, TOKENS_STEP = 16384, 2048, 1024
"""Most tokens of a forward pass worth having on a GPU and on a CPU, and the grid of the search."""


def usable_bytes(memory_bytes: float, device: str) -> float:
    """What of a device's whole memory training may plan with."""
    return memory_bytes * (1 - FREE_SHARE) - (CONTEXT_BYTES if device == "cuda" else 0)


def device_bytes(peak: float, device: str) -> float:
    """Whole memory of the smallest device that holds a peak: `usable_bytes` the other way round."""
    return (peak + (CONTEXT_BYTES if device == "cuda" else 0)) / (1 - FREE_SHARE)


def fit_to(load: Load, memory_bytes: float, checkpointing: tuple[bool, ...] = (False, True)) -> tuple[int, bool] | None:
    """The largest forward pass that fits, without recomputing activations where any does.

    Args:
        load: its `micro_batch_tokens` is the longest row (SFT) or pair (DPO), the least a forward pass must hold; its
            `gradient_checkpointing` is not read.
        memory_bytes: the device's whole memory; `usable_bytes` of it are planned with.
        checkpointing: the choices, in this order; one where the recipe has made it.

    Returns:
        (micro_batch_tokens, gradient_checkpointing); None where not even the longest row fits.
    """
    longest = load.micro_batch_tokens
    room = usable_bytes(memory_bytes, load.device)
    most = GPU_TOKENS if load.device == "cuda" else CPU_TOKENS
    grid = range(ceil(max(longest, most) / TOKENS_STEP) * TOKENS_STEP, longest, -TOKENS_STEP)
    for recompute in checkpointing:
        for tokens in (*grid, longest):
            wanted = replace(load, micro_batch_tokens=tokens, gradient_checkpointing=recompute)
            if peak_bytes(wanted).total <= room:
                return tokens, recompute
    return None
