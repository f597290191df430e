"""How much memory a forward and backward pass of LoRA training takes. Needs no torch.

    load = Load(shape, lora_rank=16, micro_batch_tokens=16384)
    peak_bytes(load).total            # to set beside torch.cuda.max_memory_allocated()

Peak = weights + adapter, its gradients and Adam's moments + what every layer keeps for the backward pass + the larger
of the head's logits (alive at the end of the forward pass) and one layer's temporaries (alive in the backward pass).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jobs.common.model_shape import ModelShape

GIB = 2**30
DTYPE_BYTES = {"bf16": 2, "fp32": 4}
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""A weight in nf4: half a byte, its share of a one-byte scale per 64, and of a four-byte one per 256 scales."""
ADAPTER_BYTES, GRADIENT_BYTES, MOMENT_BYTES = 4, 4, 8
"""Adapter, its gradient and Adam's two moments, all fp32."""


@dataclass(frozen=True)
class Kept:
    """What one decoder layer keeps for its backward pass, for each token, in units of the model's widths.

    Counted on the tensors that autograd saves (tests/train/test_memory_model.py).
    """

    hidden: float
    """Of width hidden: the inputs of q/k/v and of gate/up; compiled, both norms' inputs too."""
    hidden_fp32: float
    """Of width hidden, in fp32: an eager RMSNorm keeps its input upcast."""
    queries: float
    """Of the width of all query heads: rotated queries, and the attention's output, which is the input of o."""
    keys: float
    """Of the width of all key heads: rotated keys, values."""
    intermediate: float
    """Of width intermediate: gate, up and their product, which is the input of down; eager, silu(gate) too."""
    low_rank: float
    """Of the adapter's rank: x A for each of the seven linear modules."""


# Beside an H100: 35.0 predicted of 37.4 and 32.7 GiB measured (1.7B, 16k tokens, compiled: forward and backward pass
# alone, and an SFT run), 49.3 of 45.4 (Mistral-7B, 8k, compiled), 44.0 of 43.9 (1.7B, 16k, eager), 28.0 of 27.3
# (Mistral-7B in nf4, 4k, eager).
EAGER = Kept(hidden=2, hidden_fp32=2, queries=2, keys=2, intermediate=4, low_rank=7)
COMPILED = Kept(hidden=4, hidden_fp32=0, queries=2, keys=2, intermediate=3, low_rank=7)

HEAD_TOKENS = {"cuda": 2048, "cpu": 256}
"""Scored tokens whose logits exist at once (the chunk of jobs/train/engine/head.py)."""
LOGIT_BYTES = 12
"""For each of those logits: three fp32 copies, one of them the last chunk's."""
HEAD_STATES = 2
"""Tensors of width hidden for each scored token while the head works: gathered states, their slope."""
LAST_NORM_BYTES = 24
"""For each token and unit of width: the last norm's input in fp32 and five fp32 temporaries of its backward pass."""
BACKWARD_HIDDEN, BACKWARD_INTERMEDIATE = 1, 2
"""Tensors of width hidden and intermediate that one layer's backward pass holds beyond what the layer had kept."""

WHOLE_LAYERS = 2
"""Of divided weights, layers that are whole at once: the one at work and the next; embeddings and head stay whole."""


@dataclass(frozen=True)
class Load:
    """One training pass: everything its peak depends on. Adapters are taken to be on every linear module."""

    shape: ModelShape
    lora_rank: int
    micro_batch_tokens: int
    """Positions in one forward pass."""
    quantization: Literal["none", "nf4"] = "none"
    precision: Literal["bf16", "fp32"] = "bf16"
    gradient_checkpointing: bool = False
    compiled: bool = False
    """Whether decoder layers are compiled: fused norms, rotation and gate keep fewer tensors than eager ones."""
    scored_share: float = 1.0
    """Share of the positions whose next token is scored, 0 to 1."""
    device: Literal["cuda", "cpu"] = "cuda"
    divided: int = 1
    """Processes that hold an equal part of the weights each (FSDP); 1 where the weights are whole."""


@dataclass(frozen=True)
class Breakdown:
    """Bytes at the peak, by what they are for."""

    weights: float
    adapter: float
    optimizer: float
    gradients: float
    activations: float
    """What the layers keep for the backward pass."""
    logits: float
    """The head at work: one chunk of logits and the states it reads; gone before `workspace` is needed."""
    workspace: float
    """Temporaries of the backward pass of one layer: recomputed activations, gradients, its weights out of 4 bits."""

    @property
    def total(self) -> float:
        """The peak: what the allocator has handed out at most."""
        always = self.weights + self.adapter + self.optimizer + self.gradients + self.activations
        return always + max(self.logits, self.workspace)


def peak_bytes(load: Load) -> Breakdown:
    """Bytes in use at the peak of a training step, CUDA context not counted."""
    shape, tokens, dtype = load.shape, load.micro_batch_tokens, DTYPE_BYTES[load.precision]
    adapter, scored = shape.lora_parameters(load.lora_rank), load.scored_share * tokens
    states, layer = tokens * shape.hidden * dtype, tokens * _layer_bytes(load)
    chunk = min(scored, HEAD_TOKENS[load.device])
    head = states + tokens * shape.hidden * 4 + HEAD_STATES * scored * shape.hidden * dtype
    backward = BACKWARD_HIDDEN * states + BACKWARD_INTERMEDIATE * tokens * shape.intermediate * dtype
    recomputed = layer if load.gradient_checkpointing else 0
    return Breakdown(
        weights=_weight_bytes(load),
        adapter=adapter * (ADAPTER_BYTES + dtype),  # and a copy in the dtype of the products
        optimizer=adapter * MOMENT_BYTES / load.divided,
        gradients=adapter * GRADIENT_BYTES,
        activations=shape.layers * (states if load.gradient_checkpointing else layer),
        logits=chunk * shape.vocab * LOGIT_BYTES + head,
        workspace=max(tokens * shape.hidden * LAST_NORM_BYTES, backward + recomputed + _dequantized_bytes(load)),
    )


def _layer_bytes(load: Load) -> float:
    """What one layer keeps for the backward pass, for each token."""
    shape, kept = load.shape, COMPILED if load.compiled else EAGER
    queries, keys = kept.queries, kept.keys * shape.keys
    if load.device == "cpu":  # one attention call per segment: keys repeated for their queries, outputs joined
        queries, keys = kept.queries + 1, kept.keys * shape.queries
    in_dtype = kept.hidden * shape.hidden + queries * shape.queries + keys
    in_dtype += kept.intermediate * shape.intermediate + kept.low_rank * load.lora_rank
    in_fp32 = kept.hidden_fp32 * shape.hidden + shape.heads  # and the attention's log-sum-exp
    return DTYPE_BYTES[load.precision] * in_dtype + 4 * in_fp32


def _weight_bytes(load: Load) -> float:
    dtype = DTYPE_BYTES[load.precision]
    linear = NF4_BYTES if load.quantization == "nf4" else dtype
    linears, others = load.shape.linear_parameters * linear, load.shape.other_parameters * dtype
    if load.divided == 1:
        return linears + others
    together = others + WHOLE_LAYERS * linears / load.shape.layers
    return (linears + others) / load.divided + together


def _dequantized_bytes(load: Load) -> float:
    """The largest linear module out of 4 bits, with its fp32 scales."""
    if load.quantization == "none":
        return 0.0
    largest = max(into * out for into, out in load.shape.linears)
    return largest * (DTYPE_BYTES[load.precision] + 4 / 64)
