"""Every recipe key: its type, range, unit and only default. `recipes/README.md` is generated from these classes.

python -m jobs.common.reference     # prints that page
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from jobs.common.generate_settings import (
    Fraction,
    GenerateSettings,
    InitialSettings,
    JudgeSettings,
    Positive,
    Rate,
    Settings,
    TeacherSettings,
)


class StudentSettings(Settings):
    """The model that is trained."""

    model: str = "embedded"
    """`embedded` (SmolLM2-135M-Instruct, dequantised once), a hub id, or a folder."""
    revision: str = "main"
    """Revision of a hub id; the commit it resolved to is in the fetch manifest."""
    chat_template: Literal["chatml", "mistral"] = "chatml"
    """Template shipped with us: `chatml` (SmolLM2) or `mistral`."""


class LoraSettings(Settings):
    """The adapter (LoRA, arXiv 2106.09685)."""

    rank: Positive = 16
    """Rank of both factors."""
    alpha: Positive = 32
    """Scale: the update is multiplied by alpha / rank."""
    dropout: Fraction = 0.0
    """Dropout before the adapter."""
    target_modules: str | list[str] = "all-linear"
    """Layers that get an adapter."""


class MixInSettings(Settings):
    """A dataset mixed into training rows."""

    dataset: str
    """Local JSONL/parquet path or a hub id that fetch brings."""
    split: str = "train"
    """Split to read; a test split is refused."""
    weight: Rate
    """Rows taken, as a multiple of our own row count."""
    revision: str = "main"
    """Revision of a hub id."""


class TrainSettings(Settings):
    """What sft and dpo share."""

    quantization: Literal["none", "nf4"] = "none"
    """`nf4` keeps the frozen weights in 4 bits with double quantization (QLoRA, arXiv 2305.14314)."""
    epochs: Rate = 1.0
    """Passes over the rows."""
    max_steps: Positive | None = None
    """Stop after this many optimizer steps; replaces `epochs`."""
    batch_size: Positive = 4
    """Rows (or pairs) in one forward pass."""
    gradient_accumulation_steps: Positive = 4
    """Forward passes behind one optimizer step."""
    max_length: Positive = 1024
    """Longest row, in tokens; longer ones are counted and cut."""
    warmup_fraction: Fraction = 0.1
    """Share of the steps in which the learning rate rises."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    save_minutes: Rate = 10.0
    """Minutes between checkpoints; does not change the result."""
    mix_in: list[MixInSettings] = Field(default=[])
    """Datasets mixed in."""


class SftSettings(TrainSettings):
    """Supervised fine-tuning on prompt and revision."""

    learning_rate: Rate = 2e-4
    """Peak learning rate (AdamW, cosine decay)."""
    lora: LoraSettings = LoraSettings()
    """The adapter; DPO continues it."""


class DpoSettings(TrainSettings):
    """Direct preference optimization (arXiv 2305.18290) of the SFT adapter against the SFT model."""

    learning_rate: Rate = 5e-6
    """Peak learning rate (AdamW, cosine decay)."""
    beta: Rate = 0.1
    """Strength of the pull to the reference."""
    loss_type: Literal["sigmoid", "ipo", "hinge", "robust", "apo_zero", "apo_down"] = "sigmoid"
    """Which preference loss, by TRL's name."""


class RespondSettings(Settings):
    """Answers of base, sft and dpo to the held-out prompts."""

    max_new_tokens: Positive = 256
    """Longest answer, in tokens."""
    batch_size: Positive = 8
    """Prompts answered at once."""
    show: Positive = 3
    """Prompts printed side by side at the end."""
    max_prompts: Positive | None = None
    """Answer only the first so many held-out prompts."""


class AuditSettings(Settings):
    """Gates of the data report; a gate with fewer than 30 rows behind it warns only."""

    on_failure: Literal["stop", "report"] = "stop"
    """`stop`: exit code 65 where a gate fails, and compose trains nothing. `report`: say it and go on."""
    malformed: Fraction = 0.0
    """Most malformed rows, as a share."""
    leaks: Annotated[int, Field(ge=0)] = 0
    """Most prompts that another split holds too, word for word or nearly so."""
    duplicates: Annotated[int, Field(ge=0)] = 0
    """Most near-duplicate prompts."""
    length_only: Fraction = 0.65
    """Most pairs that their length alone gets right, as a share."""
    refusal_only: Fraction = 0.65
    """Most pairs that a list of refusal phrases alone gets right."""
    prompt_blind: Fraction = 0.75
    """Most pairs that a classifier gets right which never sees the prompt."""
    length_ratio: Annotated[float, Field(ge=1.0)] = 1.25
    """Largest ratio of the two sides' mean lengths, either way."""
    opening: Fraction = 0.1
    """Largest share of answers with the same first five words."""
    coverage: Fraction = 1.0
    """Least share of principles that have training rows."""


class Recipe(Settings):
    """One run, whole."""

    constitution: str = "south_africa"
    """Name of a file in `constitutions/`, or a path to your own."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of sampling, split, shuffling and adapter start."""
    budget_usd: Rate | None = None
    """Most this run may spend on endpoints, in US dollars, over all its stages and resumes; needs `teacher.price`."""
    budget_tokens: Positive | None = None
    """Most tokens, in and out, this run may use at endpoints; what the embedded model reads and writes is free."""
    teacher: TeacherSettings = TeacherSettings()
    initial: InitialSettings = InitialSettings()
    student: StudentSettings = StudentSettings()
    generate: GenerateSettings = GenerateSettings()
    judge: JudgeSettings = JudgeSettings()
    audit: AuditSettings = AuditSettings()
    sft: SftSettings = SftSettings()
    dpo: DpoSettings = DpoSettings()
    respond: RespondSettings = RespondSettings()
