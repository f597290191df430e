"""The memory model against the engine: bytes that really are alive in a forward and backward pass.

Every tensor an operation makes is followed until it is freed; temporaries inside one operation are not seen.
"""

from __future__ import annotations

import weakref
from typing import Any, Literal

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from transformers import LlamaConfig, LlamaForCausalLM

from jobs.common.memory import HEAD_TOKENS, Load, peak_bytes
from jobs.common.model_shape import ModelShape, shape_of
from jobs.train.engine import attention
from jobs.train.engine.attention import choose_attention
from jobs.train.engine.forward import log_probs
from jobs.train.engine.head import CHUNK
from jobs.train.engine.pack import Row, pack
from jobs.train.engine.prepare import prepare_model
from jobs.train.keeper import recompute_activations

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT and transformers about each other

SHAPE = ModelShape(hidden=128, intermediate=448, layers=4, heads=4, kv_heads=2, head_dim=32, vocab=1000, tied=True)
ROWS, LENGTH, RANK = 4, 256, 4


class Alive(TorchDispatchMode):
    """Bytes of all storages that operations made and nothing has freed."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.now = self.most = 0
        self.seen: weakref.WeakSet[Any] = weakref.WeakSet()
        for tensor in (*model.parameters(), *model.buffers()):
            self.seen.add(tensor.untyped_storage())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(out)[0]:
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage()) not in self.seen:
                self.seen.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._freed, storage.nbytes())
        self.most = max(self.most, self.now)
        return out

    def _freed(self, size: int) -> None:
        self.now -= size


def student(precision: str) -> Any:
    config = LlamaConfig(
        hidden_size=SHAPE.hidden,
        intermediate_size=SHAPE.intermediate,
        num_hidden_layers=SHAPE.layers,
        num_attention_heads=SHAPE.heads,
        num_key_value_heads=SHAPE.kv_heads,
        head_dim=SHAPE.head_dim,
        vocab_size=SHAPE.vocab,
        tie_word_embeddings=SHAPE.tied,
        attn_implementation=choose_attention("cpu"),
    )
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    model = LlamaForCausalLM(config).to(dtype)
    return get_peft_model(model, LoraConfig(r=RANK, target_modules="all-linear", task_type="CAUSAL_LM"))


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("scored", [0.3, 1.0])
def test_the_peak_of_a_pass_is_what_was_predicted(
    precision: Literal["bf16", "fp32"], checkpointing: bool, scored: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    monkeypatch.setattr(attention, "SEGMENT_DTYPE", model_dtype)  # as on a GPU, which the model of memory is for
    model = student(precision)
    prepare_model(model, compiled=False)
    if checkpointing:
        recompute_activations(model)
    model.train()
    start = max(1, round(LENGTH * (1 - scored)))
    packed = pack([Row([1] * LENGTH, [range(start, LENGTH)])] * ROWS, "cpu")
    log_probs(model, packed).sum().backward()  # gradients exist from here on
    with Alive(model) as alive:
        for parameter in model.parameters():
            if parameter.grad is not None:
                alive.seen.add(parameter.grad.untyped_storage())
        log_probs(model, packed).sum().backward()
    load = Load(
        SHAPE,
        lora_rank=RANK,
        micro_batch_tokens=ROWS * LENGTH,
        precision=precision,
        gradient_checkpointing=checkpointing,
        scored_share=scored,
        device="cpu",
    )
    peak = peak_bytes(load)
    predicted = peak.activations + max(peak.logits, peak.workspace)
    assert 0.93 * predicted < alive.most < 1.03 * predicted


def test_shape_and_weights_are_those_of_the_real_model() -> None:
    model = student("fp32")
    shape = shape_of(model.config.to_dict())
    assert shape == SHAPE
    frozen = sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert (frozen, trained) == (shape.parameters, shape.lora_parameters(RANK))


def test_the_head_works_on_as_many_tokens_as_the_model_of_memory_says() -> None:
    assert HEAD_TOKENS == CHUNK
