"""Dropout that belongs to rows: the same masks however rows are packed, other ones for every step, row and layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from jobs.train.engine.attention import choose_attention
from jobs.train.engine.dropout import RowDropout, RowMasks, row_masks
from jobs.train.engine.forward import log_probs, row_sums
from jobs.train.engine.pack import Row, pack
from jobs.train.engine.prepare import prepare_model
from tests.train.engine.test_engine import ROWS

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT, transformers and the tracer about each other


@pytest.fixture
def folder(students: Callable[[str], Path]) -> Path:
    return students("chatml")


def model_with(folder: Path, dropout: float) -> tuple[Any, RowMasks]:
    base = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=choose_attention("cpu"), device_map={"": "cpu"}
    )
    torch.manual_seed(3)
    lora = LoraConfig(
        r=4, lora_alpha=8, lora_dropout=dropout, target_modules="all-linear", task_type="CAUSAL_LM",
        init_lora_weights=False,
    )  # fmt: skip
    model = get_peft_model(base, lora).train()
    prepare_model(model, compiled=False)
    return model, row_masks(model, seed=1)


def sums(model: Any, masks: RowMasks, step: int, numbers: Sequence[int]) -> list[float]:
    """Log-probability of these rows in one pass; their gradients add up in the model."""
    rows: list[Row] = [ROWS[i] for i in numbers]
    masks.begin(step, [(i, len(ROWS[i].ids)) for i in numbers])
    packed = pack(rows, "cpu")
    found = row_sums(log_probs(model, packed), packed)
    found.sum().backward()
    return [float(value) for value in found]


def gradients(model: Any) -> dict[str, Any]:
    found = {name: value.grad for name, value in model.named_parameters() if value.requires_grad}
    model.zero_grad()
    return found


def test_rows_have_the_same_masks_alone_as_packed_in_any_order(folder: Path) -> None:
    model, masks = model_with(folder, 0.5)

    together = sums(model, masks, 4, [0, 1, 2, 3])
    expected = gradients(model)
    alone = [sums(model, masks, 4, [i])[0] for i in (0, 1, 2, 3)]
    found = gradients(model)
    turned = sums(model, masks, 4, [2, 0, 3, 1])

    assert alone == pytest.approx(together, abs=1e-5)
    assert [turned[at] for at in (1, 3, 0, 2)] == pytest.approx(together, abs=1e-5)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-5, msg=name)


def test_every_step_has_its_own_masks_and_a_step_done_again_the_same(folder: Path) -> None:
    model, masks = model_with(folder, 0.5)

    first, second, again = (sums(model, masks, step, [0, 2]) for step in (4, 5, 4))

    assert first == again
    assert all(abs(one - other) > 1e-4 for one, other in zip(first, second, strict=True))


def test_a_model_that_is_measured_drops_nothing(folder: Path) -> None:
    model, masks = model_with(folder, 0.5)
    plain, plain_masks = model_with(folder, 0.0)

    assert sums(model.eval(), masks, 0, [0, 1]) == sums(plain, plain_masks, 0, [0, 1])


def test_compiled_layers_draw_the_same_masks(folder: Path) -> None:
    found = []
    torch._dynamo.reset()
    for compiled in (False, True):
        model, masks = model_with(folder, 0.5)
        for layer in model.get_base_model().base_model.layers if compiled else ():
            layer.compile(dynamic=True, backend="aot_eager")
        found.append([sums(model, masks, step, rows) for step, rows in ((1, [0, 1]), (2, [2, 3, 0]))])

    assert found[1][0] == pytest.approx(found[0][0], abs=1e-5)
    assert found[1][1] == pytest.approx(found[0][1], abs=1e-5)


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_the_share_that_was_asked_for_is_dropped_and_the_rest_scaled(share: float) -> None:
    masks = RowMasks(seed=0)
    layers = [RowDropout(share, number, masks) for number in (0, 1)]
    masks.begin(0, [(7, 200), (8, 200)])

    found = [layer(torch.ones(1, 400, 50)) for layer in layers]

    for one in found:
        assert float((one == 0).float().mean()) == pytest.approx(share, abs=0.01)
        assert one[one != 0].unique().tolist() == ([] if share == 1 else [pytest.approx(1 / (1 - share))])
    if share < 1:
        assert not torch.equal(found[0], found[1]), "layers differ"
        assert not torch.equal(found[0][0, :200], found[0][0, 200:]), "rows differ"


def test_the_backward_pass_keeps_a_byte_for_each_value_and_the_values_of_a_product() -> None:
    masks = RowMasks(seed=1)
    masks.begin(3, [(0, 5), (1, 6)])
    dropout, values = RowDropout(0.25, 2, masks), torch.randn(1, 12, 8, requires_grad=True)
    kept: list[Any] = []

    def keep(saved: Any) -> Any:
        kept.append(saved)
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        found = dropout(values)
    drawn = torch.cat([torch.rand(rows, 8, generator=dropout._generator(i, "cpu")) for i, rows in ((0, 5), (1, 6))])
    product = torch.cat([(drawn >= 0.25).float(), torch.ones(1, 8)])[None] / 0.75

    found.sum().backward()

    assert {saved.dtype for saved in kept if saved.numel() > 1} == {torch.bool}
    torch.testing.assert_close(found, values * product)
    torch.testing.assert_close(values.grad, product)
