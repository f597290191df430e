"""Every recipe key: its type, range, unit and only default. `recipes/README.md` is generated from this file.

python -m jobs.common.reference     # prints that page
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0.0)]


class Settings(BaseModel):
    """A section of the recipe; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class PriceSettings(Settings):
    """What the teacher's endpoint charges; left out, the cost is reported as unknown."""

    input_usd_per_million_tokens: Annotated[float, Field(ge=0.0)]
    """Price of a million prompt tokens, in US dollars."""
    output_usd_per_million_tokens: Annotated[float, Field(ge=0.0)]
    """Price of a million reply tokens, in US dollars."""
    dated: str
    """Day the prices were read, `YYYY-MM-DD`; shown beside every cost."""


class TeacherSettings(Settings):
    """The model that writes red-team prompts, critiques and revisions."""

    endpoint: Literal["embedded", "api"] = "embedded"
    """`embedded` (135M model inside the job, no key) or `api` (`OPENAI_BASE_URL`, default OpenAI's)."""
    model: str = "smollm2-135m-instruct"
    """Model name sent to the endpoint."""
    structured: Literal["auto", "on", "off"] = "auto"
    """JSON-schema replies: `auto` falls back to plain chat turns where the endpoint refuses a schema."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.7
    """Sampling temperature."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    """Nucleus sampling mass."""
    concurrency: Positive = 16
    """Requests in flight; does not change the result."""
    timeout_s: Rate = 120.0
    """Longest wait for one reply, in seconds."""
    max_attempts: Positive = 6
    """Tries of one request on 429, 5xx and broken connections before the endpoint counts as down."""
    price: PriceSettings | None = None
    """Price table of the endpoint."""


class InitialSettings(Settings):
    """Who writes the initial response: by default the student itself."""

    endpoint: Annotated[str, Field(pattern=r"^[^@]*$")] = "embedded"
    """`embedded` (the student's GGUF), a URL without user name, `file` (written by `cai initial`) or `teacher`."""
    model: str = "smollm2-135m-instruct"
    """Model name sent to the endpoint and written into every row."""
    gguf_repo: str | None = None
    """Hub repository of the student's GGUF that fetch brings; empty = the embedded 135M model."""
    gguf_file: str | None = None
    """File inside `gguf_repo`."""
    gguf_revision: str = "main"
    """Revision of `gguf_repo`."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] = 0.7
    """Sampling temperature."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    """Nucleus sampling mass."""


class StudentSettings(Settings):
    """The model that is trained."""

    model: str = "embedded"
    """`embedded` (SmolLM2-135M-Instruct, dequantised once), a hub id, or a folder."""
    revision: str = "main"
    """Revision of a hub id; the commit it resolved to is in the fetch manifest."""
    chat_template: Literal["chatml", "mistral"] = "chatml"
    """Template shipped with us: `chatml` (SmolLM2) or `mistral`."""


class GenerateSettings(Settings):
    """Red-team prompts and the chains behind them."""

    prompts_per_principle: Positive = 10
    """Red-team prompts wanted for every principle."""
    prompts_per_request: Positive = 5
    """Prompts asked for in one request; 1 shows examples as chat turns, for models too small to write a list."""
    max_requests_per_principle: Positive = 12
    """Requests before a principle that is still short is reported as short."""
    prompt_tokens: Positive = 600
    """Longest reply to a request for prompts, in tokens."""
    response_tokens: Positive = 512
    """Longest initial response and revision, in tokens."""
    critique_tokens: Positive = 384
    """Longest critique, in tokens."""
    few_shot: Annotated[int, Field(ge=0)] = 0
    """Demonstrations of the constitution put before every chain."""
    held_out_fraction: Fraction = 0.2
    """Share of each principle's prompts that no training stage may see."""
    sft_fraction: Fraction = 0.5
    """Share of the remaining prompts that goes to SFT; the rest goes to DPO."""


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
    mix_in: list[MixInSettings] = []
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


class Recipe(Settings):
    """One run, whole."""

    constitution: str = "south_africa"
    """Name of a file in `constitutions/`, or a path to your own."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of sampling, split, shuffling and adapter start."""
    teacher: TeacherSettings = TeacherSettings()
    initial: InitialSettings = InitialSettings()
    student: StudentSettings = StudentSettings()
    generate: GenerateSettings = GenerateSettings()
    sft: SftSettings = SftSettings()
    dpo: DpoSettings = DpoSettings()
    respond: RespondSettings = RespondSettings()
