"""What becomes of every old key but those about model and datasets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jobs.common.errors import ConfigError
from jobs.common.old_names import NEUTRAL, OLD_NAMES
from jobs.prepare import recipe_import_data as data
from jobs.prepare import recipe_import_loss as loss
from jobs.prepare import recipe_import_student as student
from jobs.prepare.recipe_import_defaults import FULL, unsaid
from jobs.prepare.recipe_import_draft import Draft, Line, Status, shown

Translate = Callable[[Draft, str, Any], Line]

ALL_LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
LORA = {"lora_r": "rank", "lora_alpha": "alpha", "lora_dropout": "dropout", "lora_target_modules": "target_modules"}
TRACKERS = ("wandb", "trackio", "tensorboard")


def dead(draft: Draft, key: str, value: Any) -> Line:
    """A key that nothing replaces; `lost` where its value changed what was learned there."""
    reason = OLD_NAMES[key].removeprefix("nothing (").removesuffix(")")
    neutral = key not in NEUTRAL or value in NEUTRAL[key]
    return Line(key, value, "dead" if neutral else "lost", reason)


def same(draft: Draft, key: str, value: Any) -> Line:
    """A key that this stage has under the same name."""
    return Line(key, value, "kept", draft.put_here(key, value))


def number(name: str) -> Translate:
    """A number of this stage, there under another name."""

    def translate(draft: Draft, key: str, value: Any) -> Line:
        found = draft.number(key, 0)
        return Line(key, value, "kept" if key == name else "renamed", draft.put_here(name, found))

    return translate


def length(draft: Draft, key: str, value: Any) -> Line:
    """`max_length`, `max_seq_length`."""
    put = draft.put_here("max_length", int(draft.number(key, 1024)))
    return Line(key, value, "kept" if key == "max_length" else "renamed", put)


def batch_size(draft: Draft, key: str, value: Any) -> Line:
    """Rows of a forward pass times forward passes of a step: rows of a step, on one GPU."""
    rows = int(draft.number("per_device_train_batch_size", 8))
    passes = int(draft.number("gradient_accumulation_steps", 1))
    return Line(key, value, "renamed", f"{draft.put_here('batch_size', rows * passes)} ({rows} x {passes}, one GPU)")


def max_steps(draft: Draft, key: str, value: Any) -> Line:
    """`max_steps`, where -1 means that epochs decide."""
    steps = int(draft.number(key, -1))
    return same(draft, key, steps) if steps > 0 else Line(key, value, "dead", "epochs decide")


def warmup(draft: Draft, key: str, value: Any) -> Line:
    """`warmup_ratio`; `warmup_steps`, a share below 1 or a number of steps."""
    share, steps = draft.number(key, 0.0), draft.number("max_steps", -1)
    if share >= 1 and steps > 0:
        share = min(share / steps, 1.0)
    if share >= 1:
        return Line(key, value, "lost", f"{draft.stage}.warmup_fraction stays 0.1: it is a share of the steps here")
    return Line(key, value, "renamed", draft.put_here("warmup_fraction", share))


def quantization(draft: Draft, key: str, value: Any) -> Line:
    """`load_in_4bit`, `load_in_8bit`: the frozen weights, which sft and dpo share."""
    if draft.onto is not None:
        stays = draft.onto.get("sft", {}).get("quantization", "none")
        status: Status = "dead" if stays == ("nf4" if value else "none") else "lost"
        return Line(key, value, status, f"sft.quantization stays {stays}: dpo goes on over the same weights")
    if not value:
        return Line(key, value, "dead", "sft.quantization: none")
    return Line(key, value, "renamed" if key == "load_in_4bit" else "lost", draft.put("sft.quantization", "nf4"))


def lora(draft: Draft, key: str, value: Any) -> Line:
    """The adapter: sft's, which dpo continues."""
    name = LORA[key]
    if key == "lora_target_modules" and isinstance(value, list) and set(map(str, value)) == ALL_LINEAR:
        value = "all-linear"
    if draft.onto is None:
        return Line(key, draft.old[key], "renamed", draft.put(f"sft.lora.{name}", value))
    stays = draft.onto.get("sft", {}).get("lora", {}).get(name)
    status: Status = "dead" if stays == value else "lost"
    return Line(key, draft.old[key], status, f"sft.lora.{name} stays {shown(stays)}: dpo continues that adapter")


def peft(draft: Draft, key: str, value: Any) -> Line:
    """`use_peft`: here always."""
    return Line(key, value, "dead", "sft and dpo train an adapter") if value else Line(key, value, "lost", FULL)


def checkpointing(draft: Draft, key: str, value: Any) -> Line:
    """`gradient_checkpointing`: the same result with or without, so memory decides."""
    return Line(key, value, "dead", f"{draft.stage}.gradient_checkpointing stays auto: only where memory needs it")


def seed(draft: Draft, key: str, value: Any) -> Line:
    """`seed`, one for the whole run."""
    if draft.onto is None:
        return Line(key, value, "kept", draft.put("seed", value))
    stays = draft.onto.get("seed", 0)
    return Line(key, value, "dead" if stays == value else "lost", f"seed stays {stays}, one for the whole run")


def tracker(draft: Draft, key: str, value: Any) -> Line:
    """`report_to`: the first tracker we have."""
    listed = value if isinstance(value, list) else [value]
    found = next((name for name in TRACKERS if name in listed), None)
    if found is None or draft.onto is not None:
        return Line(key, value, "dead", "tracker stays as it is")
    return Line(key, value, "renamed", draft.put("tracker", found))


def evaluations(draft: Draft, key: str, value: Any) -> Line:
    """`eval_strategy` and `evaluation_strategy`."""
    if value == "no" or value is False:
        return Line(key, value, "renamed", draft.put_here("evaluations", 0))
    return Line(key, value, "dead", f"{draft.stage}.evaluations stays 2: how many, not how far apart")


def elsewhere(text: str) -> Translate:
    """A key that the command line or another key decides."""
    return lambda draft, key, value: Line(key, value, "dead", text)


TRANSLATE: dict[str, Translate] = {
    "learning_rate": number("learning_rate"),
    "beta": number("beta"),
    "label_smoothing": number("label_smoothing"),
    "loss_weights": same,
    "loss_type": loss.loss_type,
    "rpo_alpha": loss.rpo_alpha,
    "num_train_epochs": number("epochs"),
    "max_steps": max_steps,
    "max_length": length,
    "max_seq_length": length,
    "max_prompt_length": elsewhere("dpo.max_length holds prompt and answer together"),
    "per_device_train_batch_size": batch_size,
    "gradient_accumulation_steps": batch_size,
    **dict.fromkeys(("warmup_ratio", "warmup_steps"), warmup),
    **dict.fromkeys(("load_in_4bit", "load_in_8bit"), quantization),
    "use_peft": peft,
    **dict.fromkeys(LORA, lora),
    **dict.fromkeys(("gradient_checkpointing", "activation_checkpointing"), checkpointing),
    **dict.fromkeys(("eval_strategy", "evaluation_strategy"), evaluations),
    "seed": seed,
    "report_to": tracker,
    **dict.fromkeys(("per_device_eval_batch_size", "auto_find_batch_size"), elsewhere("micro_batch_tokens stays auto")),
    **dict.fromkeys(("eval_delay", "eval_on_start", "eval_steps"), elsewhere("evaluations are counted, not spaced")),
    **dict.fromkeys(("save_steps", "save_strategy"), elsewhere("a checkpoint every save_minutes: 10")),
    **dict.fromkeys(("output_dir", "run_name"), elsewhere("--run and --runs")),
    "overwrite_output_dir": elsewhere("--redo"),
    "model_name_or_path": student.model,
    "model_revision": student.revision,
    **dict.fromkeys(("chat_template", "chat_template_path"), student.chat_template),
    **dict.fromkeys(("bf16", "fp16", "dtype", "torch_dtype"), student.precision),
    **dict.fromkeys(("dataset_mixer", "dataset_mixture", "datasets", "dataset_name"), data.datasets),
    **dict.fromkeys(("dataset_splits", "dataset_train_split"), data.splits),
    **dict.fromkeys(("dataset_config", "dataset_configs"), data.configuration),
}
"""Everything else in `OLD_NAMES` is `dead`."""


def translate(draft: Draft) -> list[Line]:
    """Every key of the old file, in its order, then the defaults it relies on that are others here.

    Raises:
        ConfigError: a key that neither TRL nor the handbook has, or a value that is none of theirs.
    """
    unknown = [key for key in draft.old if key not in TRANSLATE and key not in OLD_NAMES]
    if unknown:
        raise ConfigError(
            f"{draft.file.where((unknown[0],))}: not keys of TRL's or the alignment-handbook's sft and dpo: "
            f"{', '.join(unknown)}. Remove or correct them, then import again."
        )
    defaults = unsaid(draft)
    told = {line.key for line in defaults}
    lines = [
        Line(key, value, "dead", "not set there") if value is None else TRANSLATE.get(key, dead)(draft, key, value)
        for key, value in draft.old.items()
        if key not in told
    ]
    student.unsaid_template(draft)
    return lines + defaults
