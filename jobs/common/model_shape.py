"""The sizes of a Llama-like student: what memory, arithmetic and adapters are counted from.

from jobs.common.model_shape import KNOWN, shape_of
KNOWN["HuggingFaceTB/SmolLM2-1.7B-Instruct"].lora_parameters(16)  # 18,087,936
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.common.errors import DataError


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder with gated MLPs and grouped attention (Llama, Mistral, SmolLM2, Qwen2)."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool
    """Whether the head is the embedding matrix."""

    @property
    def queries(self) -> int:
        """Width of all query heads; also of the attention's output."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of all key heads; the values' too."""
        return self.kv_heads * self.head_dim

    @property
    def linears(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of one layer's linear modules: q, k, v, o, gate, up, down."""
        into = ((self.hidden, self.queries), (self.hidden, self.keys), (self.hidden, self.keys))
        gated = ((self.hidden, self.intermediate), (self.hidden, self.intermediate))
        return (*into, (self.queries, self.hidden), *gated, (self.intermediate, self.hidden))

    @property
    def linear_parameters(self) -> int:
        """Weights of the linear modules of all layers: what 4 bits are for."""
        return self.layers * sum(into * out for into, out in self.linears)

    @property
    def other_parameters(self) -> int:
        """Embeddings, head and norms, which always stay in the dtype of the matrix products."""
        norms = (2 * self.layers + 1) * self.hidden
        return self.vocab * self.hidden * (1 if self.tied else 2) + norms

    @property
    def parameters(self) -> int:
        """Every weight, the adapter's not counted."""
        return self.linear_parameters + self.other_parameters

    def lora_parameters(self, rank: int) -> int:
        """Weights of an adapter on every linear module (LoRA, arXiv 2106.09685)."""
        return self.layers * rank * sum(into + out for into, out in self.linears)


_SMALL = ModelShape(576, 1536, 30, 9, 3, 64, 49152, tied=True)
_MEDIUM = ModelShape(960, 2560, 32, 15, 5, 64, 49152, tied=True)
_LARGE = ModelShape(2048, 8192, 24, 32, 32, 64, 49152, tied=True)
_MISTRAL = ModelShape(4096, 14336, 32, 32, 8, 128, 32000, tied=False)
_MISTRAL_V3 = ModelShape(4096, 14336, 32, 32, 8, 128, 32768, tied=False)

KNOWN: dict[str, ModelShape] = {
    "embedded": _SMALL,
    "HuggingFaceTB/SmolLM2-135M": _SMALL,
    "HuggingFaceTB/SmolLM2-135M-Instruct": _SMALL,
    "HuggingFaceTB/SmolLM2-360M": _MEDIUM,
    "HuggingFaceTB/SmolLM2-360M-Instruct": _MEDIUM,
    "HuggingFaceTB/SmolLM2-1.7B": _LARGE,
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": _LARGE,
    "mistralai/Mistral-7B-v0.1": _MISTRAL,
    "mistralai/Mistral-7B-v0.3": _MISTRAL_V3,
    "mistralai/Mistral-7B-Instruct-v0.1": _MISTRAL,
    "mistralai/Mistral-7B-Instruct-v0.2": _MISTRAL,
    "mistralai/Mistral-7B-Instruct-v0.3": _MISTRAL_V3,
    "HuggingFaceH4/mistral-7b-sft-beta": _MISTRAL,
    "HuggingFaceH4/zephyr-7b-beta": _MISTRAL,
}
"""By `student.model`, for a plan before any download; a fetched config.json comes first."""


def shape_of(config: Mapping[str, Any]) -> ModelShape:
    """The shape a model's config.json describes.

    Raises:
        DataError: a size is missing or no positive whole number.
    """

    def size(name: str, default: int | None = None) -> int:
        value = config.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise DataError(f"config.json: {name} must be a positive whole number, found {value!r}.")
        return value

    hidden, heads = size("hidden_size"), size("num_attention_heads")
    return ModelShape(
        hidden=hidden,
        intermediate=size("intermediate_size"),
        layers=size("num_hidden_layers"),
        heads=heads,
        kv_heads=size("num_key_value_heads", heads),
        head_dim=size("head_dim", max(1, hidden // heads)),
        vocab=size("vocab_size"),
        tied=config.get("tie_word_embeddings") is True,
    )
