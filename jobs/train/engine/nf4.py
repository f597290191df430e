"""Frozen weights in 4 bits (NF4 with double quantization, arXiv 2305.14314), made dense for one product at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Nf4(NamedTuple):
    """What bitsandbytes knows of one packed weight, as tensors and numbers, which compiled code can follow."""

    scales: Any
    """(blocks,) uint8: largest magnitude of each block of weights, itself quantized."""
    scale_scales: Any
    """(blocks of blocks,) fp32."""
    code: Any
    """(256,) fp32: what each of the quantized scales means."""
    offset: Any
    """() fp32: mean of the scales, taken off before they were quantized."""
    block: int
    """Weights per scale."""
    outer_block: int
    """Scales per scale of scales."""
    rows: int
    """Outputs of the layer."""
    columns: int
    """Inputs of the layer."""


def nf4_state(weight: Any) -> Nf4 | None:
    """The quantization state of a weight, or None where it is dense."""
    state = getattr(weight, "quant_state", None)
    if state is None:
        return None
    outer = state.state2
    return Nf4(state.absmax, outer.absmax, outer.code, state.offset, state.blocksize, outer.blocksize, *state.shape)


def dense(weight: Any, state: Nf4 | None, like: Tensor) -> Any:
    """The weight as (out, in) in the dtype of `like`; a dense one is itself.

    `like` is whatever the product needs the weight for. Two calls for the same weight with the same arguments would be
    one to a compiler, which would keep the dense weight from the forward to the backward pass.
    """
    if state is None:
        return weight if weight.dtype == like.dtype else weight.to(like.dtype)
    return torch.ops.cai.dense_nf4(weight, like, *state)


@torch.library.custom_op("cai::dense_nf4", mutates_args=())
def _dense_nf4(  # noqa: PLR0913 (an operator's schema: the fields of Nf4)
    weight: Tensor,
    like: Tensor,
    scales: Tensor,
    scale_scales: Tensor,
    code: Tensor,
    offset: Tensor,
    block: int,
    outer_block: int,
    rows: int,
    columns: int,
) -> Tensor:
    ops = torch.ops.bitsandbytes
    exact = ops.dequantize_blockwise(scales, scale_scales, code, outer_block, torch.float32) + offset
    result: Tensor = ops.dequantize_4bit(weight, exact, block, "nf4", (rows, columns), like.dtype)
    return result


@_dense_nf4.register_fake
def _(weight: Tensor, like: Tensor, *fields: Any) -> Tensor:
    state = Nf4(*fields)
    return like.new_empty(state.rows, state.columns)
