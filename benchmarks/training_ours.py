"""This project's side of the training benchmark: the trainers, execution and settings of `cai sft` and `cai dpo`.

Only what surrounds them is left out: the run's folder, held-out evaluations, checkpoints, tracker and progress.
"""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks.training_meter import Meter
from benchmarks.training_models import MAX_LENGTH, Case, build_model, stand_in_tokenizer
from benchmarks.training_rows import Rows
from jobs.common.model_shape import shape_of
from jobs.common.settings import DpoSettings, LoraSettings, SftSettings
from jobs.train import adapters
from jobs.train.device import choose_device
from jobs.train.engine import attention
from jobs.train.engine.pack import PairIds, Row
from jobs.train.execution import Execution, choose_execution
from jobs.train.keeper import Keeper
from jobs.train.pairs import Pairs, Passes, scored
from jobs.train.setup import Parts, common_arguments, finish_setup
from jobs.train.shares import Steps
from jobs.train.student import Student

IGNORED = -100


def train(case: Case, rows: Rows, meter: Meter, facts: dict[str, Any]) -> dict[str, Any]:
    """Train until the meter has enough; returns facts for the table."""
    stage, device = _stage(case), choose_device()
    settings = getattr(stage.context.recipe, case.stage)
    shape = shape_of(case.model.config("sdpa").to_dict())
    execution = choose_execution(stage, settings, shape, device, _measured(case, rows))
    how = Passes(device.kind, execution.micro_batch_tokens, share=execution.attention == attention.NAME)
    data, steps = _data(case, rows, how)
    facts["settings"] = _words(execution)
    model = adapters.new_adapter(build_model(case.model, execution.attention), LoraSettings(), 0)
    # Mistral's turns end with the eos token.
    student = Student(Path(case.scratch), case.model.name, "", "mistral", "cai fetch")
    parts = Parts(stage, model, stand_in_tokenizer(), student, device, execution)
    trainer = _trainer(parts, rows, meter)
    finish_setup(trainer, parts)
    trainer.begin(steps, Keeper(stage, execution), _watch(stage))
    reference_s = _use(trainer, settings, data, how)
    meter.begin()
    trainer.train()
    return {
        "reference_s_per_pair": reference_s / len(data),
        "execution": trainer.keeper.execution.figures,
        "heaviest": trainer.keeper.heaviest,
    }


def _stage(case: Case) -> Any:
    """What the trainers ask a stage for, without a run."""
    settings = {
        "quantization": case.model.quantization,
        "batch_size": case.batch_size,
        "max_length": MAX_LENGTH[case.model.name],
    }
    sft, dpo = SftSettings.model_validate(settings), DpoSettings.model_validate(settings)
    recipe = SimpleNamespace(seed=0, sft=sft, dpo=dpo)
    folder = Path(case.scratch) / "ours" / case.model.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    context = SimpleNamespace(recipe=recipe, command=lambda *words: f"cai {' '.join(words)}")
    return SimpleNamespace(context=context, folder=folder, plan=SimpleNamespace(name=case.stage))


def _measured(case: Case, rows: Rows) -> Any:
    """Rows as `Fitted` has them; training goes on until the meter has enough, so compiling always pays."""
    data: Any = rows.sft if case.stage == "sft" else rows.pairs
    sizes = [len(row[0]) if case.stage == "sft" else 2 * len(row[0]) + len(row[1]) + len(row[2]) for row in data]
    return SimpleNamespace(rows=data, longest=max(sizes), tokens=sum(sizes) * 10_000)


def _data(case: Case, rows: Rows, how: Passes) -> tuple[list[Any], Steps]:
    if case.stage == "sft":
        data: list[Any] = [Row(ids, [range(start, len(ids))]) for ids, start in rows.sft]
        sizes = tokens = [len(row.ids) for row in data]
        scored = sum(row.scored_tokens for row in data)
    else:
        data = [PairIds(*pair) for pair in rows.pairs]
        sizes = [how.size(pair) for pair in data]
        tokens = [2 * len(pair.prompt) + len(pair.chosen) + len(pair.rejected) for pair in data]
        scored = sum(len(pair.chosen) + len(pair.rejected) for pair in data)
    names = [str(number) for number in range(len(data))]
    return data, Steps(sizes, tokens, scored, names, case.batch_size, 0)


def _trainer(parts: Parts, rows: Rows, meter: Meter) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, SFTConfig

    from jobs.train.dpo_trainer import PairTrainer
    from jobs.train.sft_trainer import PackedSftTrainer

    stage = parts.stage
    settings = getattr(stage.context.recipe, stage.plan.name)
    arguments = common_arguments(settings, parts) | {"lr_scheduler_type": "constant", "max_steps": 1_000_000}
    before = adapters.snapshot(parts.model)
    if stage.plan.name == "sft":
        data = [{"input_ids": ids, "labels": [IGNORED] * start + ids[start:]} for ids, start in rows.sft]
        kind, config = PackedSftTrainer, SFTConfig(**arguments)
    else:
        data = [{"prompt_ids": a, "chosen_ids": b, "rejected_ids": c} for a, b, c in rows.pairs]
        kind, config = PairTrainer, DPOConfig(**arguments)
    trainer = _metered(kind, meter)(
        model=parts.model, args=config, train_dataset=Dataset.from_list(data), processing_class=parts.tokenizer
    )
    adapters.restore(trainer.model, before)
    if stage.plan.name == "dpo":
        trainer.model.delete_adapter(adapters.REFERENCE)
    return trainer


def _metered(kind: Any, meter: Meter) -> Any:
    class Metered(kind):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset  # rows are tokens already

        def log(self, logs: dict[str, float], *more: Any, **given: Any) -> None:
            super().log(logs, *more, **given)
            tokens = sum(self.steps.tokens[row] for row in self._rows)
            if "loss" in logs and meter.step(tokens, len(self._rows), logs["loss"]):
                self.control.should_training_stop = True

    return Metered


def _watch(stage: Any) -> Any:
    from jobs.train.stopping import StopFlag
    from jobs.train.watch import Watch

    silent = SimpleNamespace(update=lambda *_: None, log=lambda *_: None)
    return Watch(StopFlag(), silent, stage.folder / "log.jsonl", silent, math.inf, 0)


def _use(trainer: Any, settings: Any, data: list[Any], how: Passes) -> float:
    """Give the trainer its rows; returns the seconds of the reference pass."""
    if isinstance(data[0], Row):
        trainer.use(data, [], [])
        return 0.0
    import torch

    from jobs.train.losses import objective

    began = time.perf_counter()
    reference = torch.zeros(2, len(data))
    for numbers, chosen, rejected in scored(trainer.model, data, how):
        reference[0, numbers] = torch.stack([row.sum() for row in chosen])
        reference[1, numbers] = torch.stack([row.sum() for row in rejected])
    took_s = time.perf_counter() - began
    nothing = Pairs.of([], torch.zeros(2, 0), [], [])
    trainer.use(objective(settings), Pairs.of(data, reference, [0.0] * len(data), [""] * len(data)), nothing, how.share)
    return took_s


def _words(execution: Execution) -> str:
    words = [f"{execution.micro_batch_tokens} tokens a pass", execution.attention]
    words += ["checkpointing"] * execution.gradient_checkpointing + ["compiled"] * execution.compiled
    return ", ".join(words)
