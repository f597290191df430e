"""Write an exported model as GGUF, for llama.cpp and what is built on it: the inverse of dequantize.py.

Llama and Mistral models with a byte-level tokenizer; weights keep the bits and the dtype of model/. The tokenizer's
way of splitting text must be one that llama.cpp knows by name, or numbers and words would be cut otherwise there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.common.errors import ConfigError
from jobs.common.jsonl import read_json, sync_folder
from jobs.train.dequantize import LAYER_NAMES, OUTER_NAMES

MODEL_TYPES = ("llama", "mistral")
SPLITS = {("ByteLevel",): "gpt-2", ("Digits", "ByteLevel"): "smollm"}
"""How a tokenizer splits text before merging → llama.cpp's name of it."""
GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")
"""Markers of what is trained; llama.cpp's templates do not know them."""


@dataclass(frozen=True)
class _Parts:
    """What the two JSON files of a model folder say."""

    config: dict[str, Any]
    tokenizer: dict[str, Any]


@dataclass(frozen=True)
class _Stored:
    """One tensor of the safetensors files."""

    file: Path
    name: str
    heads: int
    """Heads whose rotary halves llama.cpp interleaves; 0 where it does not."""

    def read(self) -> tuple[Any, Any]:
        """Its bytes as llama.cpp keeps them, and their GGML type: vectors in fp32, matrices in their own dtype."""
        import torch
        from gguf import GGMLQuantizationType
        from safetensors import safe_open

        with safe_open(self.file, framework="pt") as tensors:
            weight = tensors.get_tensor(self.name)
        if self.heads:
            weight = _permute(weight, self.heads)
        if weight.dtype == torch.bfloat16 and weight.ndim > 1:
            return weight.contiguous().view(torch.uint8).numpy(), GGMLQuantizationType.BF16
        return weight.float().contiguous().numpy(), GGMLQuantizationType.F32


def check_gguf(folder: Path) -> None:
    """Refuse a model that cannot be written as GGUF, before any work is done.

    Args:
        folder: the student's.

    Raises:
        ConfigError: its architecture or tokenizer is another one; says what can write it.
    """
    parts = _read(folder)
    config, fault = parts.config, None
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if config["model_type"] not in MODEL_TYPES or config.get("attention_bias") or config.get("mlp_bias"):
        fault = f"its architecture ({config['model_type']}) is not Llama's"
    elif rope.get("rope_type", rope.get("type", "default")) != "default":
        fault = f"its positions are scaled ({rope.get('rope_type', rope.get('type'))})"
    elif _split(parts.tokenizer) is None:
        fault = "its tokenizer is not a byte-level one whose splitting llama.cpp knows by name"
    if fault:
        raise ConfigError(
            f"export.gguf: {folder.name} cannot be written as GGUF here: {fault}. Set export.gguf=false, then run "
            "llama.cpp's convert_hf_to_gguf.py (https://github.com/ggml-org/llama.cpp) on export/model."
        )


def write_gguf(folder: Path, target: Path, name: str) -> None:
    """Write model.gguf from an exported folder, whole or not at all.

    Args:
        folder: config.json, generation_config.json, tokenizer files and safetensors.
        target: the file.
        name: what the file calls the model.
    """
    import gguf

    parts = _read(folder)
    tensors = dict(_tensors(folder, parts.config))
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    writer = gguf.GGUFWriter(temporary, "llama")
    writer.add_name(name)
    _add_shape(writer, parts.config)
    _add_tokenizer(writer, parts, folder)
    for key, stored in tensors.items():  # read twice, so that one tensor at a time is in memory
        data, kind = stored.read()
        writer.add_tensor_info(key, data.shape, data.dtype, data.nbytes, raw_dtype=kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for stored in tensors.values():
            writer.write_tensor_data(stored.read()[0])
        writer.close()
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
        sync_folder(target.parent)
    finally:
        writer.close()
        temporary.unlink(missing_ok=True)


def _read(folder: Path) -> _Parts:
    return _Parts(read_json(folder / "config.json"), read_json(folder / "tokenizer.json"))


def _split(tokenizer: dict[str, Any]) -> str | None:
    """llama.cpp's name of how text is split; None where it has none."""
    first = tokenizer.get("pre_tokenizer") or {}
    steps = first.get("pretokenizers", [first])
    if tokenizer["model"].get("type") != "BPE" or tokenizer.get("normalizer") is not None:
        return None
    if any(step.get("add_prefix_space") or step.get("individual_digits") is False for step in steps):
        return None
    return SPLITS.get(tuple(step.get("type") for step in steps))


def _add_shape(writer: Any, config: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    rope = config.get("rope_parameters") or {}
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_rope_dimension_count(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_rope_freq_base(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def _add_tokenizer(writer: Any, parts: _Parts, folder: Path) -> None:
    from gguf import TokenType

    added = {token["id"]: token for token in parts.tokenizer["added_tokens"]}
    texts = {index: text for text, index in parts.tokenizer["model"]["vocab"].items()}
    texts |= {index: token["content"] for index, token in added.items()}
    kinds = {index: TokenType.CONTROL if it["special"] else TokenType.USER_DEFINED for index, it in added.items()}
    ids = range(parts.config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_split(parts.tokenizer))
    writer.add_token_list([texts.get(index, f"[PAD{index}]") for index in ids])
    writer.add_token_types(
        [kinds.get(index, TokenType.NORMAL if index in texts else TokenType.UNUSED) for index in ids]
    )
    merges = parts.tokenizer["model"]["merges"]
    writer.add_token_merges([one if isinstance(one, str) else " ".join(one) for one in merges])
    generation = read_json(folder / "generation_config.json")
    writer.add_eos_token_id(generation["eos_token_id"][0])  # the token that ends a turn in our template
    writer.add_pad_token_id(generation["pad_token_id"])
    if (bos := parts.config.get("bos_token_id")) is not None:
        writer.add_bos_token_id(bos)
    writer.add_add_bos_token(False)  # the template writes it where it belongs
    writer.add_add_space_prefix(False)
    writer.add_chat_template(GENERATION.sub("", (folder / "chat_template.jinja").read_text(encoding="utf-8")))


def _tensors(folder: Path, config: dict[str, Any]) -> Iterator[tuple[str, _Stored]]:
    """GGUF's names and what they stand for; a head that is the embedding is left out."""
    from safetensors import safe_open

    outer = {theirs: ours for ours, theirs in OUTER_NAMES.items()}
    layers = {theirs: ours for ours, theirs in LAYER_NAMES.items()}
    heads = config["num_attention_heads"]
    permuted = {"attn_q": heads, "attn_k": config.get("num_key_value_heads") or heads}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            names = list(tensors.keys())
        for name in names:
            if name in outer:
                yield outer[name], _Stored(file, name, 0)
                continue
            _, _, layer, *part, kind = name.split(".")
            ours = layers[".".join(part)]
            yield f"blk.{layer}.{ours}.{kind}", _Stored(file, name, permuted.get(ours, 0))


def _permute(weight: Any, heads: int) -> Any:
    """Interleave the two rotary halves as llama.cpp does."""
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, half, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)
