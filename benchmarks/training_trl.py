"""Plain TRL: with the original authors' settings, and with the best of its own that a small search finds."""

from __future__ import annotations

import shutil
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.training_meter import Meter
from benchmarks.training_models import MAX_LENGTH, Case, build_model, lora_config, stand_in_tokenizer
from benchmarks.training_rows import Rows

PAD = 0
IGNORED = -100


@dataclass(frozen=True)
class Plan:
    """One way to run TRL."""

    label: str
    batch: int
    """Sequences (pairs) in one forward pass."""
    attention: str = "sdpa"
    checkpointing: bool = False
    packed_length: int | None = None
    """Tokens of one packed sequence; None: rows are padded."""
    grouped: bool = False
    """Rows of like length share a batch."""
    precompute: bool = False
    """Reference log-probabilities before training instead of during it."""


def original(case: Case) -> Plan:
    """The original's recipe."""
    batch = 8 if case.stage == "sft" else 4
    return Plan(f"batch {batch}, padded, checkpointing", batch, checkpointing=True)


def candidates(case: Case, side: str) -> list[Plan]:
    """What the search tries for a side, all without checkpointing.

    Args:
        case: what is trained.
        side: `packed` (bfd) or `grouped` (padded, like lengths together); `best` or `precomputed` in dpo.
    """
    from transformers.utils import is_flash_attn_2_available

    gpu = case.model.device == "cuda"
    flash = gpu and is_flash_attn_2_available()
    attention = "flash_attention_2" if flash else "sdpa"
    if side == "packed":
        lengths = (2048, 8192, 16384) if flash else (2048, 4096) if gpu else (512, 1024, 2048)
        return [Plan(f"packed to {length}, {attention}", 1, attention, packed_length=length) for length in lengths]
    if side == "grouped":
        sizes = (16, 32) if gpu else (2, 4, 8)
        return [Plan(f"batch {size} by length, {attention}", size, attention, grouped=True) for size in sizes]
    sizes = (4, 8, 16) if gpu else (1, 2, 4)
    precompute = side == "precomputed"
    return [Plan(f"batch {size}, {attention}", size, attention, precompute=precompute) for size in sizes]


def train(case: Case, rows: Rows, plan: Plan, meter: Meter) -> dict[str, Any]:
    """Train until the meter has enough; returns facts for the table."""
    if case.model.device == "cuda" and not _can_compile():
        from trl.kernels import chunked_logprob

        chunked_logprob._TRITON_AVAILABLE = False  # its first kernel would die on the missing compiler
    model = build_model(case.model, plan.attention)
    trainer = (_sft if case.stage == "sft" else _dpo)(case, rows, plan, model, meter)
    meter.begin()
    trainer.train()
    return {"reference_s_per_pair": getattr(trainer, "reference_s", 0.0) / len(rows.pairs)}


def _sft(case: Case, rows: Rows, plan: Plan, model: Any, meter: Meter) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    data = [{"input_ids": ids, "labels": [IGNORED] * start + ids[start:]} for ids, start in rows.sft]
    return _counting(SFTTrainer, meter)(
        model=model,
        args=SFTConfig(
            **_arguments(case, plan, _accumulation(case, plan, rows)),
            max_length=plan.packed_length or MAX_LENGTH[case.model.name],
            packing=plan.packed_length is not None,
            **({"train_sampling_strategy": "group_by_length"} if plan.grouped else {}),
        ),
        train_dataset=Dataset.from_list(data),
        processing_class=stand_in_tokenizer(),
        peft_config=lora_config(),
    )


def _dpo(case: Case, rows: Rows, plan: Plan, model: Any, meter: Meter) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class Tokenised(_counting(DPOTrainer, meter)):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset  # rows are tokens already

        def _precompute_ref_logps(self, *given: Any) -> Any:
            began = time.perf_counter()
            try:
                return super()._precompute_ref_logps(*given)
            finally:
                self.reference_s = time.perf_counter() - began

    data = [{"prompt_ids": a, "chosen_ids": b, "rejected_ids": c} for a, b, c in rows.pairs]
    return Tokenised(
        model=model,
        args=DPOConfig(
            **_arguments(case, plan, _accumulation(case, plan, rows)),
            max_length=MAX_LENGTH[case.model.name],
            precompute_ref_log_probs=plan.precompute,
        ),
        train_dataset=Dataset.from_list(data),
        processing_class=stand_in_tokenizer(),
        peft_config=lora_config(),
    )


def _accumulation(case: Case, plan: Plan, rows: Rows) -> int:
    if plan.packed_length is None:
        return max(1, case.batch_size // plan.batch)
    tokens = case.batch_size * mean(len(ids) for ids, _ in rows.sft)
    return max(1, round(tokens / (plan.batch * plan.packed_length)))


def _arguments(case: Case, plan: Plan, accumulation: int) -> dict[str, Any]:
    return {
        "output_dir": case.scratch,
        "seed": 0,
        "learning_rate": case.learning_rate,
        "lr_scheduler_type": "constant",
        "max_steps": 1_000_000,  # the meter ends it
        "per_device_train_batch_size": plan.batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_checkpointing": plan.checkpointing,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "bf16": case.model.dtype == "bfloat16",
        "use_cpu": case.model.device == "cpu",
        "dataloader_pin_memory": case.model.device == "cuda",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def _counting(kind: Any, meter: Meter) -> Any:
    """A trainer that counts what goes through it."""

    class Counting(kind):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: dict[str, Any], *more: Any, **given: Any) -> Any:
            ids, starts = inputs["input_ids"], inputs.get("cu_seq_lens_q")
            self.seen_tokens = getattr(self, "seen_tokens", 0) + (ids != PAD).sum()
            sequences = len(ids) if starts is None else len(starts) - 1
            self.seen_rows = getattr(self, "seen_rows", 0) + sequences / (1 if "labels" in inputs else 2)
            return super().training_step(model, inputs, *more, **given)

        def taken(self) -> tuple[float, float]:
            """Tokens and rows since the last call."""
            found = float(self.seen_tokens), float(self.seen_rows)
            self.seen_tokens = self.seen_rows = 0
            return found

        def log(self, logs: dict[str, float], *more: Any, **given: Any) -> None:
            super().log(logs, *more, **given)
            if "loss" in logs and meter.step(*self.taken(), logs["loss"]):
                self.control.should_training_stop = True

    return Counting


def _can_compile() -> bool:
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return headers.exists() and any(shutil.which(name) for name in ("cc", "gcc", "clang"))
