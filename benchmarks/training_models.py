"""Models of the training benchmark: the embedded one with its own weights, the larger shapes with random ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

ModelName = Literal["tiny", "smollm2-135m", "smollm2-1.7b", "mistral-7b"]
FAMILY = {"tiny": "llama", "smollm2-135m": "llama", "smollm2-1.7b": "llama", "mistral-7b": "mistral"}
CONFIGS: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 1024, "max_position_embeddings": 1024, "tie_word_embeddings": True,
    },
    "smollm2-135m": {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192, "tie_word_embeddings": True,
    },
    "smollm2-1.7b": {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 32,
        "num_key_value_heads": 32, "vocab_size": 49152, "max_position_embeddings": 8192, "tie_word_embeddings": True,
    },
    "mistral-7b": {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 32000, "max_position_embeddings": 32768, "tie_word_embeddings": False,
        "sliding_window": None,
    },
}  # fmt: skip
"""The published shapes, whose windows all rows here are shorter than, and a toy."""
MAX_LENGTH = {"tiny": 1024, "smollm2-135m": 1024, "smollm2-1.7b": 1024, "mistral-7b": 2048}
"""The original's `max_length`."""
RANK = 16
LORA = {"r": RANK, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear", "bias": "none"}
"""The original's adapter."""


@dataclass(frozen=True)
class ModelSpec:
    """One model on one device."""

    name: ModelName
    device: str
    """`cuda` or `cpu`."""
    dtype: str
    """`bfloat16` or `float32`."""
    quantization: str
    """`none` or `nf4`."""
    folder: str | None
    """Weights to load; None: random ones."""

    def config(self, attention: str) -> Any:
        """The configuration, for transformers."""
        from transformers import LlamaConfig, MistralConfig

        kind = {"llama": LlamaConfig, "mistral": MistralConfig}[FAMILY[self.name]]
        return kind(
            **CONFIGS[self.name],
            attn_implementation=attention,
            use_cache=False,
            bos_token_id=1,
            eos_token_id=1,
            pad_token_id=0,
        )


@dataclass(frozen=True)
class Case:
    """One table: a stage of one model."""

    stage: Literal["sft", "dpo"]
    model: ModelSpec
    batch_size: int
    """Rows (pairs) behind one optimizer step, on every side."""
    scratch: str
    """A folder for the trainers' own files."""

    @property
    def learning_rate(self) -> float:
        """The recipes' defaults."""
        return 2e-4 if self.stage == "sft" else 5e-6

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Case:
        """What `asdict` made of a case."""
        return cls(**{**given, "model": ModelSpec(**given["model"])})


def build_model(spec: ModelSpec, attention: str) -> Any:
    """The frozen model on its device; the same seed gives every side the same weights."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    dtype, weights = getattr(torch, spec.dtype), None
    config = None if spec.folder else spec.config(attention)
    if config is not None:
        with torch.device(spec.device):
            model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
        if spec.quantization == "none":
            return model
        weights = model.state_dict()
        kind = type(model)
        del model
    else:
        kind = AutoModelForCausalLM
    return kind.from_pretrained(
        spec.folder,
        config=config,
        state_dict=weights,
        dtype=dtype,
        device_map={"": spec.device},
        attn_implementation=attention,
        quantization_config=_four_bit(dtype) if spec.quantization == "nf4" else None,
    )


def lora_config() -> Any:
    """The adapter of every side."""
    from peft import LoraConfig

    return LoraConfig(**LORA, task_type="CAUSAL_LM")


def stand_in_tokenizer() -> Any:
    """What the trainers ask a tokenizer for when rows are tokens already: a name and an id for padding."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 2}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def _four_bit(dtype: Any) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
