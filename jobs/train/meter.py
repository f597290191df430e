"""How fast training goes and how much of the device it uses, from what each optimizer step logs.

meter = Meter(flops_per_token, peak_flops)
entry |= meter.measured(entry)                                  # as a step is logged
progress.update("training", step, steps, meter.training(entry))
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobs.common.flops import Work, causal_context
from jobs.common.gpus import find_gpu
from jobs.common.live import WINDOW_S, Training
from jobs.common.model_shape import shape_of
from jobs.train.execution import Execution
from jobs.train.shares import Steps


@dataclass
class Meter:
    """Reads the log entries of optimizer steps: `loss`, `num_tokens` (of all steps so far) and `tokens_per_s` (of one).

    `mfu` is the model FLOPs utilization of PaLM (arXiv 2204.02311, appendix B), with LoRA's arithmetic
    (jobs/common/flops.py): frozen weights have no gradients of their own.
    """

    flops_per_token: float | None = None
    """Arithmetic that one trained token needs; None where it is not known."""
    peak_flops: float | None = None
    """What the devices do together at best, in FLOP/s of the chosen precision; None where it is not known."""
    _seen: int | None = None
    _steps: deque[tuple[int, float]] = field(default_factory=deque)
    """Tokens and seconds of the latest steps, as many as fill the window."""

    def measured(self, entry: Mapping[str, Any]) -> dict[str, float]:
        """The step's own `mfu` and `gpu_memory_bytes`, where they are known."""
        found = {"mfu": self._mfu(entry.get("tokens_per_s")), "gpu_memory_bytes": gpu_memory_bytes()}
        return {name: value for name, value in found.items() if value is not None}

    def training(self, entry: Mapping[str, Any]) -> Training:
        """What to show after this step, with the speed of recent ones; call it once for every step."""
        rate = self._recent(entry)
        return Training(float(entry["loss"]), rate, self._mfu(rate), gpu_memory_bytes())

    def _recent(self, entry: Mapping[str, Any]) -> float | None:
        rate, seen, before = entry.get("tokens_per_s"), entry.get("num_tokens"), self._seen
        if not rate or seen is None:
            return None
        self._seen = int(seen)
        if before is None:  # how many tokens this one step had is not known
            return float(rate)
        self._steps.append((self._seen - before, (self._seen - before) / rate))
        seconds = sum(length_s for _, length_s in self._steps)
        while len(self._steps) > 1 and seconds - self._steps[0][1] >= WINDOW_S:
            seconds -= self._steps.popleft()[1]
        return sum(tokens for tokens, _ in self._steps) / seconds

    def _mfu(self, tokens_per_s: float | None) -> float | None:
        if not (tokens_per_s and self.flops_per_token and self.peak_flops):
            return None
        return tokens_per_s * self.flops_per_token / self.peak_flops


def meter_of(model: Any, steps: Steps, execution: Execution, processes: int) -> Meter:
    """The meter of a run.

    Args:
        model: with its adapter; its config and the adapter's rank are read.
        steps: rows of the run; positions and tokens differ where a pair's prompt is laid down once.
        execution: names the device and the dtype of the products.
        processes: each with a device of that kind.
    """
    gpu = find_gpu(execution.device) if execution.precision == "bf16" else None
    positions = sum(steps.sizes)
    rank = model.peft_config["default"].r
    shape = shape_of(model.config.to_dict())
    work = Work(shape, rank, causal_context(steps.sizes), steps.scored / positions)
    peak = gpu.bf16_flops * processes if gpu and gpu.bf16_flops else None
    return Meter(work.training * positions / sum(steps.tokens), peak)


def gpu_memory_bytes() -> int | None:
    """Most memory that tensors of this process held on the GPU at once; None without a GPU."""
    import torch

    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else None
