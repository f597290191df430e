"""The packed path computes what the plain padded path computes: values and gradients, in fp32."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch._dynamo.utils import counters
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from jobs.common.errors import ConfigError
from jobs.train.engine import attention
from jobs.train.engine.attention import choose_attention
from jobs.train.engine.forward import install_head, log_probs, row_sums
from jobs.train.engine.head import _values, _values_without_copies
from jobs.train.engine.layers import group_layers
from jobs.train.engine.pack import MULTIPLE, PairIds, Row, pack, pack_pairs, positions_of
from jobs.train.engine.prepare import prepare_model

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT and transformers about each other


def scored_from(ids: Sequence[int], start: int) -> Row:
    return Row(ids, [range(start, len(ids))])


ROWS = [
    scored_from([5, 6, 7, 8, 9, 10, 11], 3),
    scored_from([12, 13, 14], 1),
    scored_from([20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31], 7),
    scored_from([40, 41], 1),
    Row([60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70], [range(2, 4), range(6, 7), range(8, 10)]),
]
PAIRS = [
    PairIds([5, 6, 7, 8], [9, 10, 11], [30, 31, 32, 33, 34]),
    PairIds([12], [13, 14, 15, 16], [17]),
    PairIds([50, 51, 52], [53], [54, 55, 56]),
]


def _model(folder: Path, attention: str, quantized: bool = False, seed: int = 3) -> Any:
    four_bit = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    base = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation=attention,
        quantization_config=four_bit if quantized else None,
        device_map={"": "cpu"},
    )
    torch.manual_seed(seed)
    model = get_peft_model(
        base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    )
    return model.train()


def _plain(model: Any, rows: Sequence[Row]) -> Any:
    """Sum of the scored tokens' log-probabilities of every row, padded, through the model's own logits."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.tensor([[*row.ids, *[0] * (longest - len(row.ids))] for row in rows])
    mask = torch.tensor([[1] * len(row.ids) + [0] * (longest - len(row.ids)) for row in rows])
    logits = model(input_ids=ids, attention_mask=mask).logits.float().log_softmax(-1)
    picked = logits[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
    scored = torch.tensor([[any(at in it for it in row.scored) for at in range(1, longest)] for row in rows])
    return (picked * scored).sum(1)


def _sides(pairs: Sequence[PairIds]) -> list[Row]:
    chosen = [scored_from([*pair.prompt, *pair.chosen], len(pair.prompt)) for pair in pairs]
    return chosen + [scored_from([*pair.prompt, *pair.rejected], len(pair.prompt)) for pair in pairs]


def _gradients(model: Any) -> dict[str, Any]:
    found = {name: value.grad for name, value in model.named_parameters() if value.requires_grad}
    model.zero_grad()
    return found


def _backward(sums: Any) -> None:
    (sums * torch.linspace(0.5, 1.5, len(sums))).sum().backward()


@pytest.fixture(params=["chatml", "mistral"])
def folder(request: pytest.FixtureRequest, students: Callable[[str], Path]) -> Path:
    return students(request.param)


@pytest.mark.parametrize("quantized", [False, True], ids=["dense", "nf4"])
@pytest.mark.parametrize("layout", ["rows", "pairs", "pairs sharing their prompt", "rows with padding"])
def test_packed_values_and_gradients_equal_the_padded_path_of_peft_and_transformers(
    folder: Path, layout: str, quantized: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ROWS if layout.startswith("rows") else _sides(PAIRS)
    plain = _model(folder, "sdpa", quantized)
    expected = _plain(plain, rows)
    _backward(expected)
    if layout == "rows with padding":
        monkeypatch.setitem(MULTIPLE, "cpu", 64)
    packed = {
        "rows": lambda: pack(ROWS, "cpu"),
        "rows with padding": lambda: pack(ROWS, "cpu"),
        "pairs": lambda: pack_pairs(PAIRS, "cpu", share=False),
        "pairs sharing their prompt": lambda: pack_pairs(PAIRS, "cpu", share=True),
    }[layout]()
    ours = _model(folder, choose_attention("cpu"), quantized)
    prepare_model(ours, compiled=False)
    found = row_sums(log_probs(ours, packed), packed)
    _backward(found)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    reference = _gradients(plain)
    for name, gradient in _gradients(ours).items():
        torch.testing.assert_close(gradient, reference[name], atol=5e-5, rtol=1e-4, msg=name)


def test_layers_that_share_their_input_compute_the_same_in_one_product(folder: Path) -> None:
    found = []
    for grouped in (False, True):
        model = _model(folder, choose_attention("cpu"))
        prepare_model(model, compiled=False)
        assert group_layers(model) == 4 if grouped else True
        packed = pack_pairs(PAIRS, "cpu", share=True)
        sums = row_sums(log_probs(model, packed), packed)
        _backward(sums)
        found.append((sums, _gradients(model)))
    torch.testing.assert_close(found[1][0], found[0][0], atol=2e-5, rtol=1e-5)
    for name, gradient in found[1][1].items():
        torch.testing.assert_close(gradient, found[0][1][name], atol=5e-5, rtol=1e-4, msg=name)


def test_layers_that_share_their_input_keep_the_attention_they_were_loaded_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _model(folder, "sdpa")
    prepare_model(model, compiled=False)
    packed = pack(ROWS[:1], "cpu")
    alone = log_probs(model, packed)
    assert group_layers(model) == 4
    monkeypatch.setattr(attention, "packed_attention", lambda *_, **__: pytest.fail("ours was called"))

    torch.testing.assert_close(log_probs(model, packed), alone, atol=1e-6, rtol=0)


def test_segments_are_found_without_their_lengths_as_on_a_gpu_in_fp32(folder: Path) -> None:
    model = _model(folder, choose_attention("cpu"))
    prepare_model(model, compiled=False)
    packed = pack_pairs(PAIRS, "cpu", share=True)
    bare = replace(packed, attention={name: it for name, it in packed.attention.items() if name != "lengths"})

    assert torch.equal(log_probs(model, bare), log_probs(model, packed))


def test_flash_attn_is_taken_where_it_is_installed_but_in_fp32_and_is_deterministic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("transformers.utils.is_flash_attn_2_available", lambda: True)
    monkeypatch.setenv("FLASH_ATTENTION_DETERMINISTIC", "")
    monkeypatch.delenv("FLASH_ATTENTION_DETERMINISTIC")

    assert choose_attention("cuda", "fp32") == choose_attention("cpu") == attention.NAME
    assert "FLASH_ATTENTION_DETERMINISTIC" not in os.environ
    assert choose_attention("cuda", "bf16") == "flash_attention_2"
    assert os.environ["FLASH_ATTENTION_DETERMINISTIC"] == "1"


@pytest.mark.filterwarnings("ignore")  # what the tracer touches warns
@pytest.mark.parametrize("quantized", [False, True], ids=["dense", "nf4"])
def test_compiled_layers_compute_the_same_in_one_graph_per_kind_of_layer(folder: Path, quantized: bool) -> None:
    found = []
    torch._dynamo.reset()
    counters.clear()
    for compiled in (False, True):
        model = _model(folder, choose_attention("cpu"), quantized)
        prepare_model(model, compiled=False)
        for layer in model.get_base_model().base_model.layers if compiled else ():
            layer.compile(
                dynamic=True, backend="aot_eager"
            )  # traced and differentiated as for a GPU, without its kernels
        packed = pack_pairs(PAIRS, "cpu", share=True)
        sums = row_sums(log_probs(model, packed), packed)
        _backward(sums)
        found.append((sums, _gradients(model)))
    torch.testing.assert_close(found[1][0], found[0][0], atol=1e-6, rtol=1e-6)
    for name, gradient in found[1][1].items():
        torch.testing.assert_close(gradient, found[0][1][name], atol=1e-6, rtol=1e-5, msg=name)
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 2, "the first layer's input has no gradient, the others' has"


def test_what_is_compiled_of_the_head_is_what_runs_without() -> None:
    torch.manual_seed(0)
    logits, picked = torch.randn(7, 19), torch.randint(19, (7, 1))
    values, pull = _values(logits.clone(), picked, True)
    fused_values, fused_pull = _values_without_copies(logits, picked, True)
    torch.testing.assert_close(fused_values, values)
    torch.testing.assert_close(fused_pull, pull)


def test_a_row_never_sees_another_row(folder: Path) -> None:
    model = _model(folder, choose_attention("cpu"))
    prepare_model(model, compiled=False)
    alone = log_probs(model, pack(ROWS[:1], "cpu"))
    beside = log_probs(model, pack([ROWS[0], scored_from([99, 98, 97], 1)], "cpu"))
    torch.testing.assert_close(alone, beside[: len(alone)], atol=1e-6, rtol=0)


def test_checkpointing_changes_no_gradient(folder: Path) -> None:
    found = []
    for checkpointing in (False, True):
        model = _model(folder, choose_attention("cpu"))
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        prepare_model(model, compiled=False)
        packed = pack(ROWS, "cpu")
        _backward(row_sums(log_probs(model, packed), packed))
        found.append(_gradients(model))
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name]), name


def test_without_scored_positions_the_model_answers_as_before(folder: Path) -> None:
    plain, ours = _model(folder, "sdpa").eval(), _model(folder, choose_attention("cpu")).eval()
    prepare_model(ours, compiled=False)
    ids, mask = torch.tensor([[0, 0, 5, 6, 7], [8, 9, 10, 11, 12]]), torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    asked = {"input_ids": ids, "attention_mask": mask, "max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    assert torch.equal(plain.generate(**asked), ours.generate(**asked))


def test_an_adapter_switched_off_is_the_base(folder: Path) -> None:
    model = _model(folder, choose_attention("cpu"))
    prepare_model(model, compiled=False)
    packed = pack(ROWS, "cpu")
    with model.disable_adapter():
        off = row_sums(log_probs(model, packed), packed)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.testing.assert_close(off, _plain(base, ROWS), atol=2e-5, rtol=1e-5)


def test_a_model_that_scales_its_logits_is_refused(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.config.logit_scale = 0.5
    with pytest.raises(ConfigError, match="logit_scale"):
        install_head(model, compiled=False)


def test_the_tokens_between_two_answers_are_read_and_not_scored() -> None:
    packed = pack(ROWS[3:], "cpu")

    assert packed.targets.tolist() == [41, 62, 63, 66, 68, 69]
    assert packed.positions.tolist() == [0, 3, 4, 7, 9, 10]
    assert packed.owner.tolist() == [0, 1, 1, 1, 1, 1]
    assert packed.tokens == packed.input_ids.shape[1] == 13
    assert sum(row.scored_tokens for row in ROWS[3:]) == 6


def test_a_shared_prompt_takes_its_positions_once() -> None:
    shared, apart = (pack_pairs(PAIRS, "cpu", share=share) for share in (True, False))
    assert shared.input_ids.shape[1] == sum(positions_of(pair, True) for pair in PAIRS)
    assert apart.input_ids.shape[1] == sum(positions_of(pair, False) for pair in PAIRS)
    assert shared.tokens == apart.tokens == apart.input_ids.shape[1]
    assert torch.equal(shared.targets, apart.targets)
    assert torch.equal(shared.owner, apart.owner)
