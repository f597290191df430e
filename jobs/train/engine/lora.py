"""A LoRA layer as one differentiable step (LoRA, arXiv 2106.09685, section 4.1).

PEFT's own forward casts the whole input to the adapter's fp32, multiplies there, and keeps the copy for the backward
pass. Here the fp32 factors are rounded to the input's dtype instead, as autocast would; in fp32 both are the same
function.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from jobs.train.engine.nf4 import Nf4, dense, nf4_state


def fuse_lora(model: Any) -> int:
    """Give every LoRA layer of a model the fused forward; returns how many there are.

    PEFT's own forward still runs where an adapter is disabled, merged, one of several, or has dropout.
    """
    from peft.tuners.lora import LoraLayer

    found = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    for layer in found:
        if not hasattr(layer, "peft_forward"):
            layer.peft_forward = layer.forward
            layer.forward = MethodType(_forward, layer)
    return len(found)


def fusible(layer: Any) -> bool:
    """Whether exactly one adapter of a LoRA layer is active, without dropout and not merged."""
    active = layer.active_adapters
    return (
        not layer.disable_adapters
        and not layer.merged
        and len(active) == 1
        and active[0] in layer.lora_A
        and getattr(layer.lora_dropout[active[0]], "p", 0.0) == 0.0  # DPO turns the dropout of an SFT adapter off
    )


@torch.library.custom_op("cai::add_product", mutates_args=("total",))
def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add left right to total, in place: compiled code would otherwise copy `total` first.

    Shapes: total (M, N), left (M, K), right (K, N).
    """
    total.addmm_(left, right)


def _forward(self: Any, x: Any, *arguments: Any, **given: Any) -> Any:
    if arguments or given or not fusible(self):
        return self.peft_forward(x, *arguments, **given)
    base, name = self.get_base_layer(), self.active_adapters[0]
    factors = self.lora_A[name].weight, self.lora_B[name].weight
    apply: Any = LoraLinear.apply
    return apply(x, *factors, base.weight, base.bias, self.scaling[name], *(nf4_state(base.weight) or ()))


class LoraLinear(torch.autograd.Function):
    """x W' + bias + scaling (x A') B', with W frozen, dense or in 4 bits."""

    @staticmethod
    def forward(ctx: Any, x: Any, a: Any, b: Any, *frozen: Any) -> Any:
        """Shapes: x (…, in), a (rank, in), b (out, rank); returns (…, out).

        `frozen` is weight (out, in) or packed, bias, scaling, and the fields of a packed weight's `Nf4`.
        """
        weight, bias, scaling, *fields = frozen
        state = Nf4(*fields) if fields else None
        flat = x.reshape(-1, x.shape[-1])
        down = flat @ a.to(x.dtype).t()
        y = linear(flat, dense(weight, state, flat), bias)
        add_product(y, down, b.to(x.dtype).t() * scaling)
        ctx.save_for_backward(flat, down, a, b, weight)
        ctx.scaling, ctx.state, ctx.shape, ctx.frozen = scaling, state, x.shape, len(frozen)
        return y.view(*x.shape[:-1], y.shape[-1])

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        """Gradients of x, a and b; the base has none."""
        flat, down, a, b, weight = ctx.saved_tensors
        dy = grad.reshape(-1, grad.shape[-1])
        up = (dy @ b.to(dy.dtype)) * ctx.scaling
        da, db = (up.t() @ flat).to(a.dtype), (dy.t() @ down).to(b.dtype) * ctx.scaling
        dx = None
        if ctx.needs_input_grad[0]:
            dx = dy @ dense(weight, ctx.state, dy)
            add_product(dx, up, a.to(dy.dtype))
            dx = dx.view(ctx.shape)
        return dx, da, db, *[None] * ctx.frozen
