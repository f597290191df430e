"""A packed step of any number of passes has the loss, the gradients and the figures of TRL's own padded path."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch

from jobs.common.loss_settings import LossType
from jobs.common.settings import DpoSettings
from jobs.train import adapters
from jobs.train.dpo_trainer import PairTrainer
from jobs.train.engine.attention import choose_attention
from jobs.train.engine.pack import PairIds
from jobs.train.engine.prepare import prepare_model
from jobs.train.losses import Part, join, loss_of
from jobs.train.margins import GAINED
from jobs.train.objective import Objective, objective, pair_smoothing
from jobs.train.pairs import Pairs, Passes, pair_ids, scored

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # notes between the libraries

KINDS = get_args(LossType)
NEEDS_SMOOTHING = {"exo_pair": {"label_smoothing": 0.01}}


def settings(kind: str) -> DpoSettings:
    return DpoSettings.model_validate({"loss_type": kind, "beta": 0.3, **NEEDS_SMOOTHING.get(kind, {})})


class Sides:
    """The same student and pairs twice: in TRL's own trainer, and in ours."""

    def __init__(self, folder: Path, tmp_path: Path) -> None:
        from datasets import Dataset
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.tokenizer.pad_token = "<|endoftext|>"
        draw = random.Random(1)

        def words(most: int) -> list[int]:
            return [draw.randrange(5, len(self.tokenizer)) for _ in range(draw.randint(2, most))]

        self.rows = [{"prompt_ids": words(9), "chosen_ids": words(14), "rejected_ids": words(20)} for _ in range(6)]
        self.data = Dataset.from_list([{"prompt": "p", "chosen": "c", "rejected": "r"} for _ in self.rows])
        self.folder, self.out = folder, tmp_path

    def model(self, attention: str | None) -> Any:
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32, attn_implementation=attention)
        torch.manual_seed(3)
        model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
        for name, value in sorted(adapters.weights(model).items()):
            value.data = torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name))) * 0.05
        return model

    def arguments(self, goal: DpoSettings) -> dict[str, Any]:
        from trl import DPOConfig

        kinds = goal.loss_type if isinstance(goal.loss_type, list) else [goal.loss_type]
        smoothing = goal.label_smoothing if isinstance(goal.label_smoothing, float) else 0.0
        config = DPOConfig(
            output_dir=str(self.out), beta=goal.beta, loss_type=kinds, loss_weights=goal.loss_weights,
            label_smoothing=smoothing, max_length=24, use_cpu=True, bf16=False, gradient_checkpointing=False,
            per_device_train_batch_size=6, report_to="none",
        )  # fmt: skip
        return {"args": config, "train_dataset": self.data, "processing_class": self.tokenizer}

    def drift(self, model: Any) -> None:
        """Move the policy off its reference, the same way on both sides."""
        for name, value in sorted(adapters.weights(model).items()):
            value.data += torch.randn(value.shape, generator=torch.Generator().manual_seed(7 + len(name))) * 0.02

    def plain(self, goal: DpoSettings) -> tuple[float, dict[str, Any], dict[str, float]]:
        from trl import DPOTrainer

        trainer = DPOTrainer(model=self.model(None), **self.arguments(goal))
        self.drift(trainer.model)
        trainer.model.train()
        loss = trainer._compute_loss(trainer.model, trainer.data_collator(self.rows), return_outputs=False)
        loss.backward()
        figures = {name: values[0] for name, values in trainer._metrics["train"].items()}
        return loss.item(), {name: value.grad for name, value in adapters.weights(trainer.model).items()}, figures

    def trainer(self, goal: DpoSettings, share: bool, capacity: int) -> PairTrainer:
        trainer = PairTrainer(model=self.model(choose_attention("cpu")), **self.arguments(goal))
        trainer.model.delete_adapter(adapters.REFERENCE)
        prepare_model(trainer.model, compiled=False)
        ids = [pair_ids(row, 24) for row in self.rows]
        how = Passes(torch.device("cpu"), capacity, share)
        reference = torch.empty(2, len(ids))
        for at, chosen, rejected in scored(trainer.model, ids, how):
            reference[:, at] = torch.tensor([[float(row.sum()) for row in side] for side in (chosen, rejected)])
        smoothing = torch.full((len(ids),), goal.label_smoothing if isinstance(goal.label_smoothing, float) else 0.0)
        pairs = Pairs(ids, reference, smoothing, ["ubuntu"] * len(ids))
        trainer.use(objective(goal), pairs, pairs, share)
        trainer.steps = SimpleNamespace(sizes=[how.size(pair) for pair in ids])  # type: ignore[assignment]
        trainer.keeper = SimpleNamespace(capacity=capacity)  # type: ignore[assignment]
        trainer.watch = SimpleNamespace(held_out_batch=lambda *_: None)  # type: ignore[assignment]
        trainer._shares = {}
        self.drift(trainer.model)
        return trainer

    def packed(self, goal: DpoSettings, share: bool, capacity: int) -> tuple[float, dict[str, Any], dict[str, float]]:
        from jobs.train.shares import passes

        trainer = self.trainer(goal, share, capacity)
        rows = [3, 0, 5, 1, 4, 2]
        total, loss = trainer.step_total(rows), 0.0
        for indices in passes(rows, trainer.steps.sizes, capacity):
            part = trainer.micro_batch_loss(trainer.model, trainer.pack_rows(indices), indices, total)
            part.backward()
            loss += part.item()
        return loss, {n: value.grad for n, value in adapters.weights(trainer.model).items()}, trainer._shares


@pytest.fixture(scope="module")
def sides(students: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Sides:
    return Sides(students("chatml"), tmp_path_factory.mktemp("trl"))


def same(ours: tuple[float, Any, Any], trl: tuple[float, Any, Any]) -> None:
    assert ours[0] == pytest.approx(trl[0], rel=5e-6, abs=1e-6)
    assert ours[1].keys() == trl[1].keys()
    largest = max(float(grad.abs().max()) for grad in trl[1].values())
    assert largest > 0
    for name, grad in trl[1].items():
        assert float((ours[1][name] - grad).abs().max()) <= 1e-4 * largest, name
    assert set(ours[2]) == {GAINED, *(name for name in trl[2] if name.startswith(("rewards/", "logps/")))}
    for name, value in ours[2].items():
        if name == GAINED:
            continue
        assert value == pytest.approx(trl[2][name], rel=1e-5, abs=1e-5), name


@pytest.mark.parametrize("kind", KINDS)
def test_loss_gradients_and_figures_are_trls(sides: Sides, kind: str) -> None:
    trl = sides.plain(settings(kind))

    same(sides.packed(settings(kind), share=False, capacity=10_000), trl)
    same(sides.packed(settings(kind), share=True, capacity=70), trl)


def test_weighted_losses_in_several_passes_are_trls(sides: Sides) -> None:
    goal = DpoSettings(loss_type=["sigmoid", "sft", "aot"], loss_weights=[1.0, 0.1, 0.5])

    same(sides.packed(goal, share=True, capacity=60), sides.plain(goal))


def test_the_policy_is_measured_pair_by_pair_and_as_one_batch(sides: Sides) -> None:
    goal = settings("sigmoid")
    loss, _, figures = sides.plain(goal)

    measured = sides.trainer(goal, share=True, capacity=60).measure(sides.trainer(goal, True, 60).pairs)

    assert measured.loss == pytest.approx(loss, rel=2e-6)
    assert measured.figures["rewards/margins"] == pytest.approx(figures["rewards/margins"], rel=1e-4)
    margins = [pair.margin for pair in measured.pairs]
    assert sum(margins) / 6 == pytest.approx(figures["rewards/margins"], rel=1e-4)
    assert sum(pair.right for pair in measured.pairs) / 6 == pytest.approx(figures["rewards/accuracies"])


def part(draw: random.Random, pairs: int = 4) -> Part:
    def side() -> list[torch.Tensor]:
        return [torch.tensor([draw.uniform(-3, 0) for _ in range(draw.randint(1, 6))]) for _ in range(pairs)]

    reference = torch.tensor([[draw.uniform(-9, 0) for _ in range(pairs)] for _ in range(2)])
    return Part(side(), side(), reference, torch.tensor([draw.uniform(0, 0.5) for _ in range(pairs)]))


def flipped(one: Part) -> Part:
    return Part(one.rejected, one.chosen, one.reference.flip(0), one.smoothing)


@pytest.mark.parametrize("kind", ["sigmoid", "sigmoid_norm", "ipo"])
def test_smoothing_by_the_judge_mixes_every_pair_with_its_flip(kind: str) -> None:
    smooth, sharp = Objective((kind,), (1.0,), 0.4, None), Objective((kind,), (1.0,), 0.4, 0.0)
    whole = part(random.Random(0))
    singles = [
        Part([a], [b], whole.reference[:, i : i + 1], whole.smoothing[i : i + 1])
        for i, (a, b) in enumerate(zip(whole.chosen, whole.rejected, strict=True))
    ]

    def exact(one: Part) -> float:
        sure = Part(one.chosen, one.rejected, one.reference, one.smoothing * 0)
        wrong = flipped(sure)
        e = float(one.smoothing[0])
        return (1 - e) * float(loss_of(sharp, sure, sure.share)[0]) + e * float(loss_of(sharp, wrong, wrong.share)[0])

    assert float(loss_of(smooth, whole, whole.share)[0]) == pytest.approx(sum(map(exact, singles)) / 4, rel=1e-5)


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("aot", "aot_unpaired")])
def test_parts_add_up_to_the_step(kind: str) -> None:
    goal, draw = objective(settings(kind)), random.Random(2)
    parts = [part(draw, pairs) for pairs in (1, 3, 2)]
    whole = join(parts)

    shares = [float(loss_of(goal, one, whole.share)[0]) for one in parts]

    assert sum(shares) == pytest.approx(float(loss_of(goal, whole, whole.share)[0]), rel=1e-5)


def test_smoothing_of_a_pair_follows_the_judge() -> None:
    by_judge = objective(DpoSettings(label_smoothing="judge"))

    assert [pair_smoothing(by_judge, p) for p in (None, 1.0, 0.8)] == pytest.approx([0.0, 0.0, 0.2])
    assert pair_smoothing(by_judge, 0.1) == pytest.approx(0.499)
    assert pair_smoothing(objective(DpoSettings(label_smoothing=0.1)), 0.8) == 0.1


def test_ids_are_cut_as_trl_cuts_them() -> None:
    row = {"prompt_ids": [1, 2, 3], "chosen_ids": [4, 5, 6], "rejected_ids": [7]}

    assert pair_ids(row, 5) == PairIds([1, 2, 3], [4, 5], [7])


def test_an_adapter_trained_with_dropout_is_fused_once_dpo_turned_dropout_off(sides: Sides) -> None:
    from peft import LoraConfig
    from peft.tuners.lora import LoraLayer

    from jobs.train.engine.lora import fusible

    model = sides.model(choose_attention("cpu"))
    model.add_adapter("dropped", LoraConfig(r=2, lora_dropout=0.3, target_modules="all-linear", task_type="CAUSAL_LM"))
    model.set_adapter("dropped")
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
    before = [fusible(layer) for layer in layers]
    for layer in layers:
        layer.lora_dropout["dropped"].p = 0.0  # as TRL's disable_dropout does

    assert (any(before), all(map(fusible, layers))) == (False, True)
