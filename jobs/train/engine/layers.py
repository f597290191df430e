"""Llama's and Mistral's attention and MLP over grouped LoRA layers; any other model keeps its own forward."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

from jobs.train.engine.group import Group, groupable


def group_layers(model: Any) -> int:
    """Give attention and MLP of a Llama or Mistral the grouped forward; returns how many groups there are.

    Without segments (generation), with another attention than ours, and where an adapter is off or not alone, the
    model's own forward runs.
    """
    from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP
    from transformers.models.mistral.modeling_mistral import MistralAttention, MistralMLP

    attentions = _grouped(model, (LlamaAttention, MistralAttention), ("q_proj", "k_proj", "v_proj"), _attention)
    return attentions + _grouped(model, (LlamaMLP, MistralMLP), ("gate_proj", "up_proj"), _mlp)


def _grouped(model: Any, kinds: tuple[Any, ...], names: tuple[str, ...], forward: Callable[..., Any]) -> int:
    found = 0
    for module in list(model.modules()):
        if isinstance(module, kinds):
            layers = [getattr(module, name) for name in names]
            if groupable(layers):
                module.group, module.own_forward = Group(layers), module.forward
                module.forward = MethodType(forward, module)
                found += 1
    return found


def _attention(self: Any, *arguments: Any, **given: Any) -> Any:
    from jobs.train.engine.attention import NAME, packed_attention

    ours = self.config._attn_implementation == NAME
    if arguments or given.get("cu_seq_lens_q") is None or not ours or not self.group.usable():
        return self.own_forward(*arguments, **given)
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    x = given.pop("hidden_states")
    q, k, v = (part.view(*x.shape[:-1], -1, self.head_dim).transpose(1, 2) for part in self.group.outputs(x))
    q, k = apply_rotary_pos_emb(q, k, *given.pop("position_embeddings"))
    given.pop("attention_mask", None)
    found, _ = packed_attention(self, q, k, v, None, scaling=self.scaling, **given)
    return self.o_proj(found.reshape(*x.shape[:-1], -1)), None


def _mlp(self: Any, x: Any) -> Any:
    if not self.group.usable():
        return self.own_forward(x)
    gate, up = self.group.outputs(x)
    return self.down_proj(self.act_fn(gate) * up)
