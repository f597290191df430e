"""LoRA layers that read the same input (q, k, v; gate, up) as one matrix product instead of three per layer.

[x, x A'] [W, scaling B]' = x W' + scaling (x A') B'. The factors ride along in a few extra columns, so the large
outputs are written once instead of written, read and written again, and the backward pass has the gradient of x A' for
free.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from jobs.train.engine.lora import fusible

ALIGNED = 8
"""Extra columns come in multiples of this many values: 16 bytes in bf16, which fast kernels ask for."""


class Group:
    """LoRA layers over one input, their frozen weights in one matrix with room for the factors."""

    def __init__(self, layers: Sequence[Any]) -> None:
        """Move the layers' weights into one matrix; their parameters become views of it.

        Args:
            layers: PEFT's LoRA layers that are `groupable`.
        """
        self.layers = layers
        weights = [layer.get_base_layer().weight for layer in layers]
        self.sizes = [weight.shape[0] for weight in weights]
        width = weights[0].shape[1]
        extra = sum(factor.weight.shape[0] for layer in layers for factor in layer.lora_A.values())
        extra += -extra % ALIGNED
        self.weight = weights[0].new_zeros(sum(self.sizes), width + extra)
        for weight, part in zip(weights, self.weight.split(self.sizes), strict=True):
            part[:, :width] = weight.data
            weight.data = part[:, :width]

    def usable(self) -> bool:
        """Whether the one adapter without dropout is active in every layer."""
        return all(fusible(layer) for layer in self.layers)

    def outputs(self, x: Any) -> tuple[Any, ...]:
        """Every layer's output for x (…, in), in the order of the layers."""
        names = [layer.active_adapters[0] for layer in self.layers]
        a = [layer.lora_A[name].weight for layer, name in zip(self.layers, names, strict=True)]
        b = [layer.lora_B[name].weight for layer, name in zip(self.layers, names, strict=True)]
        y, _ = torch.ops.cai.grouped_lora(
            x.reshape(-1, x.shape[-1]), self.weight, a, b, self.layers[0].scaling[names[0]]
        )
        return tuple(part.view(*x.shape[:-1], part.shape[-1]) for part in y.split(self.sizes, -1))


def groupable(layers: Sequence[Any]) -> bool:
    """Whether LoRA layers can share one matrix: one adapter each, of one rank and scale, dense weights, no bias."""
    from peft.tuners.lora import LoraLayer

    if not all(isinstance(layer, LoraLayer) and len(layer.lora_A) == 1 for layer in layers):
        return False
    bases = [layer.get_base_layer() for layer in layers]
    scales = {(next(iter(layer.r.values())), next(iter(layer.scaling.values()))) for layer in layers}
    return len(scales) == 1 and all(
        base.bias is None and getattr(base.weight, "quant_state", None) is None for base in bases
    )


def _bounds(b: Sequence[Tensor]) -> list[tuple[int, int]]:
    edges = [0]
    for factor in b:
        edges.append(edges[-1] + factor.shape[0])
    return list(pairwise(edges))


def _ride_along(weight: Tensor, b: Sequence[Tensor], scaling: float, width: int) -> None:
    """Write scaling B of every layer into the extra columns, each layer in its own."""
    rank = b[0].shape[1]
    for number, (first, last) in enumerate(_bounds(b)):
        begin = width + number * rank
        weight[first:last, begin : begin + rank] = b[number] * scaling


# The extra columns of `weight` are scratch: written before each use and read by nobody else. So the operator counts as
# one without side effects, and a compiler has no reason to copy the whole matrix.
@torch.library.custom_op("cai::grouped_lora", mutates_args=())
def _grouped(x: Tensor, weight: Tensor, a: list[Tensor], b: list[Tensor], scaling: float) -> tuple[Tensor, Tensor]:
    width, rank = x.shape[1], a[0].shape[0]
    _ride_along(weight, b, scaling, width)
    used = width + rank * len(a)
    wide = x.new_empty(len(x), weight.shape[1])
    wide[:, :width] = x
    wide[:, width:used] = x @ torch.cat(a).to(x.dtype).t()
    wide[:, used:] = 0
    return wide @ weight.t(), wide


@_grouped.register_fake
def _(x: Tensor, weight: Tensor, a: list[Tensor], b: list[Tensor], scaling: float) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], weight.shape[0]), x.new_empty(x.shape[0], weight.shape[1])


@torch.library.custom_op("cai::grouped_lora_backward", mutates_args=())
def _grouped_backward(  # noqa: PLR0913 (an operator's schema)
    grad: Tensor, wide: Tensor, weight: Tensor, a: list[Tensor], b: list[Tensor], scaling: float
) -> tuple[Tensor, Tensor, Tensor]:
    rank, width = a[0].shape
    _ride_along(weight, b, scaling, width)
    dwide = grad @ weight
    up = dwide[:, width : width + rank * len(a)]
    da = (up.t() @ wide[:, :width]).to(a[0].dtype)
    parts = [
        grad[:, first:last].t() @ wide[:, width + number * rank : width + (number + 1) * rank]
        for number, (first, last) in enumerate(_bounds(b))
    ]
    dwide[:, :width].addmm_(up, torch.cat(a).to(grad.dtype))
    return dwide, da, torch.cat(parts).to(b[0].dtype) * scaling


@_grouped_backward.register_fake
def _(  # noqa: PLR0913
    grad: Tensor, wide: Tensor, weight: Tensor, a: list[Tensor], b: list[Tensor], scaling: float
) -> tuple[Tensor, Tensor, Tensor]:
    rank, width = a[0].shape
    da = a[0].new_empty(len(a) * rank, width)
    return torch.empty_like(wide), da, b[0].new_empty(grad.shape[1], rank)


def _setup_context(ctx: Any, inputs: Any, output: Any) -> None:
    x, weight, a, b, scaling = inputs
    ctx.save_for_backward(output[1], weight, *a, *b)
    ctx.scaling, ctx.width = scaling, x.shape[1]


def _backward(ctx: Any, grad: Any, _: Any) -> Any:
    wide, weight, *factors = ctx.saved_tensors
    half = len(factors) // 2
    a, b = factors[:half], factors[half:]
    dwide, da, db = torch.ops.cai.grouped_lora_backward(grad.contiguous(), wide, weight, a, b, ctx.scaling)
    sizes = [factor.shape[0] for factor in b]
    return dwide[:, : ctx.width], None, list(da.split(a[0].shape[0])), list(db.split(sizes)), None


_grouped.register_autograd(_backward, setup_context=_setup_context)
