"""Log-probabilities of the scored tokens alone; logits exist for one chunk of them at a time.

The gradient of a log-probability by its hidden state, w_target - sum_v p_v w_v, needs nothing but the logits, so it is
computed with them: two matrix products per chunk, where recomputing in the backward pass would take three.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

CHUNK = {"cuda": 2048, "cpu": 256}
"""Scored tokens whose logits exist at once."""


class TokenLogProbs(torch.autograd.Function):
    """log softmax(hidden weight')[target] of every scored token, with the weight frozen."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, compiled: bool) -> Tensor:
        """Shapes: hidden (N, H), weight (V, H), targets (N,) int64; returns (N,) fp32."""
        needed = ctx.needs_input_grad[0]
        found = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        slope = torch.empty_like(hidden) if needed else None
        values = _fused() if compiled else _values
        chunk = CHUNK[hidden.device.type]
        for first in range(0, len(hidden), chunk):
            part = slice(first, first + chunk)
            found[part], pull = values(hidden[part] @ weight.t(), targets[part, None], needed)
            if slope is not None:
                slope[part] = pull @ weight
            del pull  # or two chunks' logits would be there at once
        ctx.save_for_backward(slope)
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """Gradient of the hidden states; the head has none."""
        (slope,) = ctx.saved_tensors
        return slope * grad[:, None].to(slope.dtype), None, None, None


def _values(logits: Tensor, picked: Tensor, needed: bool) -> tuple[Tensor, Tensor]:
    """Log-probabilities (n,) and their gradient by the logits (n, V), from logits (n, V) and targets (n, 1)."""
    exact = logits.float()
    total = exact.logsumexp(1, keepdim=True)
    found = (exact.gather(1, picked) - total)[:, 0]
    if not needed:
        return found, logits
    pull = exact.sub_(total).exp_().neg_()
    pull.scatter_add_(1, picked, torch.ones_like(total))
    return found, pull.to(logits.dtype)


def _values_without_copies(logits: Tensor, picked: Tensor, needed: bool) -> tuple[Tensor, Tensor]:
    """The same for a compiler, which fuses it into two passes over the logits and wants nothing done in place."""
    exact = logits.float()
    total = exact.logsumexp(1, keepdim=True)
    found = (exact.gather(1, picked) - total)[:, 0]
    if not needed:
        return found, logits
    share = (exact - total).exp()
    columns = torch.arange(logits.shape[1], device=logits.device)
    return found, torch.where(columns == picked, 1 - share, -share).to(logits.dtype)


@cache
def _fused() -> Any:
    return torch.compile(_values_without_copies, dynamic=True)
