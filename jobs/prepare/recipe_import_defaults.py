"""What an old file leaves to its trainer's defaults, where ours are others."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.common.settings import DpoSettings, LoraSettings, SftSettings
from jobs.prepare.recipe_import_draft import Draft, Line, shown

FULL = "every weight is trained there, here an adapter (sft.lora)"
"""What becomes of a training without LoRA."""


@dataclass(frozen=True)
class Default:
    """One setting, as TRL 1.16 has it where none of its keys is written; the alignment-handbook uses TRL's classes."""

    keys: tuple[str, ...]
    """Any of them sets it."""
    name: str
    """The same setting here, within its stage."""
    sft: float
    """What SFTConfig has."""
    dpo: float
    """What DPOConfig has."""


DEFAULTS = (
    Default(("num_train_epochs",), "epochs", 3.0, 3.0),
    Default(("per_device_train_batch_size", "gradient_accumulation_steps"), "batch_size", 8, 8),
    Default(("learning_rate",), "learning_rate", 2e-5, 1e-6),
    Default(("warmup_steps", "warmup_ratio"), "warmup_fraction", 0, 0),
)
"""Numbers that are others here."""
SCHEDULER = "linear"
LORA_DROPOUT = 0.05


def unsaid(draft: Draft) -> list[Line]:
    """A line for every setting that the file does not set and that is another one here.

    Raises:
        ConfigError: `max_steps`, which decides over epochs, is no number.
    """
    lines = []
    ours = (SftSettings if draft.stage == "sft" else DpoSettings).model_fields
    for one in DEFAULTS:
        decided = one.name == "epochs" and draft.number("max_steps", -1) > 0
        if not decided and not _written(draft, *one.keys):
            there = one.sft if draft.stage == "sft" else one.dpo
            lines.append(_differs(one.keys[0], there, f"{draft.stage}.{one.name}", ours[one.name].default))
    if not _written(draft, "lr_scheduler_type"):
        lines.append(Line("lr_scheduler_type", "", "lost", f"not set there ({SCHEDULER} by default) → cosine here"))
    return lines + _adapter(draft)


def _adapter(draft: Draft) -> list[Line]:
    if not _written(draft, "use_peft"):
        return [Line("use_peft", "", "lost", f"not set there (false by default): {FULL}")]
    lines: list[Line] = []
    if draft.onto is None and draft.old["use_peft"]:
        ours = LoraSettings()
        if not _written(draft, "lora_dropout"):
            lines.append(_differs("lora_dropout", LORA_DROPOUT, "sft.lora.dropout", ours.dropout))
        if not _written(draft, "lora_target_modules"):
            where = "sft.lora.target_modules"
            lines.append(_differs("lora_target_modules", "PEFT's choice for the model", where, ours.target_modules))
    return lines


def _differs(key: str, there: object, setting: str, here: object) -> Line:
    return Line(key, "", "differs", f"not set there ({shown(there)} by default) → {setting}: {shown(here)} here")


def _written(draft: Draft, *keys: str) -> bool:
    return any(draft.old.get(key) is not None for key in keys)
