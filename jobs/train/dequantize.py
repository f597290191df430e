"""Turn a llama-architecture GGUF into a folder that transformers loads: done once, kept in RUNS/models.

`AutoModelForCausalLM.from_pretrained(gguf_file=…)` does the same but parses the file three times and refuses to save
what it loaded; here the file is parsed once. A test compares both, bit by bit.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from jobs.common.console import say
from jobs.common.errors import ConfigError, DataError
from jobs.common.fetched import dequantised
from jobs.common.jsonl import sha256_file, sync_folder

LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def dequantized_folder(gguf: Path, name: str, models: Path, again: str) -> Path:
    """The folder of the dequantised model, made on first use.

    Args:
        gguf: the file.
        name: of the model.
        models: RUNS/models.
        again: the command that brings the file anew; for messages.

    Raises:
        DataError: the GGUF is missing or damaged.
        ConfigError: its architecture is not llama.
    """
    if not gguf.is_file():
        raise DataError(f"{gguf} does not exist. Run: {again}")
    target = dequantised(models, name, sha256_file(gguf))
    if (target / "config.json").exists():
        return target
    say(f"Dequantising {gguf.name} once into {target}")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        _write(gguf, temporary, again)
        for path in temporary.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        try:
            temporary.replace(target)
        except OSError:
            if not (target / "config.json").exists():  # another process was first
                raise
        sync_folder(models)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _write(gguf: Path, folder: Path, again: str) -> None:
    from gguf import GGUFReader
    from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    try:
        reader = GGUFReader(gguf)
    except (ValueError, IndexError) as error:
        raise DataError(f"{gguf} is damaged: {error}. Run: {again}") from error
    fields = {key: field for key, field in reader.fields.items() if len(field.data) <= 1}
    facts = {key: field.contents() for key, field in fields.items()}
    if facts["general.architecture"] != "llama":
        found = facts["general.architecture"]
        raise ConfigError(f"{gguf}: architecture {found!r}; a GGUF student must be llama. Use a folder or a hub id.")
    # Loaded first: the tokenizer names the special tokens that the configuration repeats.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config = _config(facts, tied=all(tensor.name != "output.weight" for tensor in reader.tensors))
    weights = {name: tensor for name, tensor in (_weight(tensor, config) for tensor in reader.tensors) if name}
    model = LlamaForCausalLM.from_pretrained(None, config=config, state_dict=weights, dtype="float32")
    model.generation_config = GenerationConfig(bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _config(facts: dict[str, Any], tied: bool) -> Any:
    from transformers import LlamaConfig

    heads = facts["llama.attention.head_count"]
    return LlamaConfig(
        vocab_size=facts["llama.vocab_size"],
        hidden_size=facts["llama.embedding_length"],
        intermediate_size=facts["llama.feed_forward_length"],
        num_hidden_layers=facts["llama.block_count"],
        num_attention_heads=heads,
        num_key_value_heads=facts.get("llama.attention.head_count_kv", heads),
        head_dim=facts["llama.rope.dimension_count"],
        max_position_embeddings=facts["llama.context_length"],
        rms_norm_eps=facts["llama.attention.layer_norm_rms_epsilon"],
        rope_parameters={"rope_type": "default", "rope_theta": facts.get("llama.rope.freq_base", 10000.0)},
        bos_token_id=facts["tokenizer.ggml.bos_token_id"],
        eos_token_id=facts["tokenizer.ggml.eos_token_id"],
        tie_word_embeddings=tied,
        attention_dropout=0.0,
    )


def _weight(tensor: Any, config: Any) -> tuple[str, Any]:
    import torch
    from gguf import dequantize

    if tensor.name in OUTER_NAMES:
        name = OUTER_NAMES[tensor.name]
    elif tensor.name.startswith("blk."):
        _, layer, part, kind = tensor.name.split(".")
        name = f"model.layers.{layer}.{LAYER_NAMES[part]}.{kind}"
    else:
        return "", None  # rope_freqs: transformers computes them from the configuration
    weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
    if ".attn_q." in tensor.name:
        weight = _unpermute(weight, config.num_attention_heads)
    if ".attn_k." in tensor.name:
        weight = _unpermute(weight, config.num_key_value_heads)
    return name, weight


def _unpermute(weight: Any, heads: int) -> Any:
    """Undo llama.cpp's interleaving of the two rotary halves."""
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, half, 2, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape).contiguous()
