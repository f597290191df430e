"""Attention for packed rows, exact without flash-attn.

On CUDA it is torch's own variable-length kernel, which knows 16-bit floats alone; in fp32 and on the CPU one call per
segment.

Registered with transformers' AttentionInterface under `NAME`. A call without segments (generation, a padded batch) is
transformers' sdpa.
"""

from __future__ import annotations

import inspect
import os
from functools import cache
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

NAME = "cai_packed"
SEGMENT_DTYPE = torch.float32
"""Of attention one segment at a time: torch's CPU kernels are faster in fp32 than in bf16, casts included."""


def choose_attention(device: str, precision: str = "bf16") -> str:
    """Name of the attention for `from_pretrained(attn_implementation=…)`: flash-attn where installed, else ours.

    Args:
        device: `cuda` or `cpu`.
        precision: `bf16` or `fp32`; flash-attn has no fp32.
    """
    from transformers.utils import is_flash_attn_2_available

    if device == "cuda" and precision == "bf16" and is_flash_attn_2_available():
        os.environ.setdefault("FLASH_ATTENTION_DETERMINISTIC", "1")  # torch's own switch does not reach it
        return "flash_attention_2"
    _register()
    return NAME


@cache
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, _mask)


def packed_attention(module: Any, query: Any, key: Any, value: Any, mask: Any, **given: Any) -> tuple[Any, None]:
    """Causal attention within every segment; transformers calls it in each layer.

    Args:
        module: the layer; its training flag and groups matter to sdpa alone.
        query: (1, heads, T, dim).
        key: (1, kv heads, T, dim).
        value: (1, kv heads, T, dim).
        mask: None where segments are given.
        given: `scaling` of the scores, and what `Packed.attention` holds, or what sdpa takes.

    Returns:
        (1, T, heads, dim), and no weights.
    """
    if given.get("cu_seq_lens_q") is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        result: tuple[Any, None] = sdpa_attention_forward(module, query, key, value, mask, **given)
        return result
    q, k, v = (states[0].transpose(0, 1) for states in (query, key, value))
    source = given.get("key_source")
    if source is not None:
        k, v = k[source], v[source]
    attend = _kernel if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) else _segments
    return attend(q, k, v, given)[None], None


def _kernel(q: Any, k: Any, v: Any, given: dict[str, Any]) -> Any:
    from torch.nn.attention.varlen import varlen_attn

    names = inspect.signature(varlen_attn).parameters  # they differ between torch 2.10, 2.11 and 2.12
    how: dict[str, Any] = {"is_causal": True} if "is_causal" in names else {"window_size": (-1, 0)}
    if "enable_gqa" in names:
        how["enable_gqa"] = q.shape[1] != k.shape[1]
    if "scale" in names:
        how["scale"] = given.get("scaling")
    lengths = given["max_length_q"], given["max_length_k"]
    return varlen_attn(q, k, v, given["cu_seq_lens_q"], given["cu_seq_lens_k"], *lengths, **how)


def _segments(q: Any, k: Any, v: Any, given: dict[str, Any]) -> Any:
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    queries, keys = given.get("lengths") or _lengths(given)
    dtype = q.dtype
    q, k, v = q.to(SEGMENT_DTYPE), k.to(SEGMENT_DTYPE), v.to(SEGMENT_DTYPE)
    split = zip(q.split(queries), k.split(keys), v.split(keys), strict=True)
    parts = [_segment([part.transpose(0, 1)[None] for part in three], given.get("scaling")) for three in split]
    return torch.cat([part[0].transpose(0, 1) for part in parts]).to(dtype)


def _lengths(given: dict[str, Any]) -> tuple[list[int], list[int]]:
    return given["cu_seq_lens_q"].diff().tolist(), given["cu_seq_lens_k"].diff().tolist()


def _segment(states: list[Any], scaling: float | None) -> Any:
    q, k, v = states
    asks, answers = q.shape[2], k.shape[2]
    if asks == answers:
        return scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling)
    sees = torch.ones(asks, answers, dtype=torch.bool, device=q.device).tril(answers - asks)
    return scaled_dot_product_attention(q, k, v, attn_mask=sees, scale=scaling)


def _mask(*arguments: Any, **given: Any) -> Any:
    if given.get("attention_mask") is None:
        return None
    from transformers.masking_utils import sdpa_mask

    return sdpa_mask(*arguments, **given)
