"""The recipe's sections about writing data: teacher, initial responses, prompts and chains (see `settings.py`)."""

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
    batch_discount: Fraction = 0.5
    """Share taken off the price of replies that come through the Batch API (`teacher.mode: batch`)."""
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
    mode: Literal["live", "batch"] = "live"
    """`live`, or `batch`: the endpoint's Batch API, at a discount and within a day; the rows are the same."""
    concurrency: Positive = 512
    """Most requests in flight; the endpoint's limit is found below it. For a small server of your own: its slots."""
    requests_per_minute: Positive | None = None
    """Requests the endpoint allows in a minute, where it has such a limit and does not say so itself."""
    tokens_per_minute: Positive | None = None
    """Tokens, in and out, the endpoint allows in a minute, where it has such a limit and does not say so itself."""
    timeout_s: Rate = 120.0
    """Longest wait for one reply, in seconds."""
    max_attempts: Positive = 6
    """Tries of one request on 5xx, timeouts and broken connections; twice as many on 429 while nothing gets through."""
    price: PriceSettings | None = None
    """Price table of the endpoint."""


class InitialSettings(Settings):
    """Who writes the initial response: by default the student itself."""

    endpoint: Annotated[str, Field(pattern=r"^[^@]*$")] = "embedded"
    """`embedded` (the student's GGUF), a URL without user name, `file` (`cai respond --system base`) or `teacher`."""
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
    samples: Positive = 1
    """Answers of the student to each prompt; more give the preference pairs more to choose from (not with `file`)."""
    price: PriceSettings | None = None
    """Price table of a URL that charges; left out, a server in your own network counts as free."""


class JudgeSettings(Settings):
    """Who compares the revision with the initial response, blind and in both orders."""

    rule: Literal["both_orders", "mean", "off"] = "both_orders"
    """`both_orders`: kept where both orders agree. `mean`: where the mean of both says so. `off`: unchecked."""
    model: str = ""
    """Model name at the teacher's endpoint, charged at `teacher.price`; empty = the teacher itself."""
    reasoning: bool = False
    """Think before the verdict; its probabilities are kept between 0.4 and 0.6 (arXiv 2212.08073, section 4.1)."""


class GenerateSettings(Settings):
    """Red-team prompts and the chains behind them."""

    prompts_per_principle: Positive = 10
    """Red-team prompts wanted for every principle."""
    prompts_per_request: Positive = 5
    """Prompts asked for in one request; 1 shows examples as chat turns, for models too small to write a list."""
    max_requests_per_principle: Positive = 12
    """Requests before a principle that is still short is reported as short."""
    tries: Positive = 4
    """Replies asked for one text before its row counts as failed or dropped; raise it and only such rows ask again."""
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
    held_out_principles: list[str] = []
    """Ids of principles that no training stage may see at all: all their prompts are held out."""
    languages: list[Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")]] = []
    """BCP 47 codes of the languages prompts are written in, in turn; empty = the constitution's."""
    benign_twins: bool = True
    """Give every red-team prompt a sibling that a user may well ask: the model learns judgement, not refusal."""
    max_revisions: Positive = 2
    """Rounds of critique and revision before a revision that does not win against the initial response is dropped."""
    balance: bool = True
    """Match chosen and rejected in length: a length-bounded rewrite, then a minimal edit where that fails."""
