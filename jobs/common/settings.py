"""Every recipe key: type, range, unit and only default; `python -m jobs.common.reference` writes them as a page."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from jobs.common.frozen_weights import follow_sft
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
from jobs.common.loss_settings import LossType, loss_fault
from jobs.common.train_split import train_split


class StudentSettings(Settings):
    """The model that is trained."""

    model: str = "embedded"
    """`embedded` (SmolLM2-135M-Instruct, dequantised once), a hub id, or a folder."""
    revision: str = "main"
    """Revision of a hub id; the commit it resolved to is in the fetch manifest."""
    chat_template: Literal["chatml", "mistral", "zephyr"] = "chatml"
    """Template shipped with us: `chatml` (SmolLM2), `mistral`, or `zephyr`."""


class LoraSettings(Settings):
    """The adapter (LoRA, arXiv 2106.09685)."""

    rank: Positive = 16
    """Rank of both factors."""
    alpha: Positive = 32
    """Scale: the update is multiplied by alpha / rank."""
    dropout: Fraction = 0.0
    """Dropout before the adapter."""
    target_modules: str | list[str] = "all-linear"
    """Layers that get an adapter: linear ones of the decoder, by a list of names or a pattern for whole names."""


class MixInSettings(Settings):
    """A dataset mixed into training rows."""

    dataset: str
    """Local JSONL/parquet path or a hub id that fetch brings."""
    split: Annotated[str, AfterValidator(train_split)] = "train"
    """Split to read; one to measure on (test, validation, dev, eval, held out) is refused."""
    weight: Rate
    """Rows taken, as a multiple of our own row count."""
    revision: str = "main"
    """Revision of a hub id."""


class TrainSettings(Settings):
    """What sft and dpo share."""

    quantization: Literal["none", "nf4"] = "none"
    """`nf4`: frozen weights in 4 bits, double quantization (QLoRA, arXiv 2305.14314). dpo's is sft's where not said."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """Dtype of frozen weights and matrix products; adapters are always fp32. `auto`: bf16 where the hardware has it."""
    epochs: Rate = 1.0
    """Passes over the rows."""
    max_steps: Positive | None = None
    """Stop after this many optimizer steps; replaces `epochs`."""
    batch_size: Positive = 16
    """Rows (or pairs) behind one optimizer step, whatever number of forward passes they take."""
    micro_batch_tokens: Positive | Literal["auto"] = "auto"
    """Tokens in one forward pass; rows are packed whole into it. `auto`: what the device's memory holds."""
    max_length: Positive = 1024
    """Longest row, in tokens; longer ones are counted and cut."""
    warmup_fraction: Fraction = 0.1
    """Share of the steps in which the learning rate rises."""
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """Recompute activations in the backward pass: less memory, more time. `auto`: where they do not fit otherwise."""
    evaluations: Annotated[int, Field(ge=0)] = 2
    """Held-out evaluations during training, besides the one before and the one after it."""
    save_minutes: Rate = 10.0
    """Minutes between checkpoints; does not change the result."""
    mix_in: list[MixInSettings] = Field(default=[])
    """Datasets mixed in."""

    @model_validator(mode="after")
    def _holds_the_longest_row(self) -> Self:
        if self.micro_batch_tokens != "auto" and self.micro_batch_tokens < self.max_length:
            raise ValueError(f"micro_batch_tokens {self.micro_batch_tokens} is below max_length {self.max_length}")
        return self


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
    loss_type: LossType | Annotated[list[LossType], Field(min_length=1)] = "sigmoid"
    """Which preference loss, by TRL's name; a list is summed by `loss_weights`."""
    loss_weights: list[Rate] | None = None
    """One weight per loss of a list; all 1 where not given."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] | Literal["judge"] = 0.0
    """Share of pairs taken to be the wrong way round; `judge`: each pair's own, from the judge's probability."""

    @model_validator(mode="after")
    def _losses_go_together(self) -> Self:
        losses = [self.loss_type] if isinstance(self.loss_type, str) else self.loss_type
        if fault := loss_fault(losses, self.loss_weights, self.label_smoothing):
            raise ValueError(fault)
        return self


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


class ExportSettings(Settings):
    """The merged model."""

    system: Literal["sft", "dpo"] = "dpo"
    """Whose adapter is merged into the base."""
    gguf: bool = False
    """Write a GGUF too (Llama and Mistral models with a byte-level tokenizer)."""


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
    export: ExportSettings = ExportSettings()
    tracker: Literal["tensorboard", "trackio", "wandb"] = "tensorboard"
    """Where training figures go besides log.jsonl: TensorBoard files, or offline logs that `cai publish logs` sends."""
    _follow_sft = model_validator(mode="before")(follow_sft)
