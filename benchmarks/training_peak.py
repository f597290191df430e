"""What MFU is measured against: the arithmetic of a useful token, and the machine's matrix products."""

from __future__ import annotations

import math
import time

from benchmarks.training_models import RANK, Case
from benchmarks.training_rows import Rows
from jobs.common.flops import Work, causal_context
from jobs.common.gpus import find_gpu
from jobs.common.model_shape import shape_of

SIZE, TIMES = 2048, 8


def flops_per_token(case: Case, rows: Rows) -> float:
    """FLOPs of training one token of these rows with LoRA, without recomputation."""
    if case.stage == "sft":
        lengths = [len(ids) for ids, _ in rows.sft]
        scored = sum(len(ids) - start for ids, start in rows.sft)
    else:
        lengths = [len(prompt) + len(side) for prompt, *sides in rows.pairs for side in sides]
        scored = sum(len(side) for _, *sides in rows.pairs for side in sides)
    shape = shape_of(case.model.config("sdpa").to_dict())
    return Work(shape, RANK, causal_context(lengths), scored / sum(lengths)).training


def matmul_peak(device: str, gpu: str) -> float:
    """FLOP/s of bf16 matrix products: a GPU's published peak, a CPU's measured one; NaN where unknown.

    Args:
        device: `cuda` or `cpu`.
        gpu: the driver's name of it.
    """
    if device == "cuda":
        known = find_gpu(gpu)
        return known.bf16_flops if known and known.bf16_flops else math.nan
    import torch

    a, b = (torch.randn(SIZE, SIZE).bfloat16() for _ in range(2))
    best = 0.0
    for _ in range(TIMES):
        began = time.perf_counter()
        a @ b
        best = max(best, 2 * SIZE**3 / (time.perf_counter() - began))
    return best
