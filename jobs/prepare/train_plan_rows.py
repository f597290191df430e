"""What a training stage will read: rows and their lengths, from the run's data where it is finished, else assumed.

There is no tokenizer in the CPU image, so tokens are bytes divided by what a token has on average.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean, pstdev
from typing import Literal

from jobs.common.constitution import Constitution
from jobs.common.flops import causal_context
from jobs.common.jsonl import read_records
from jobs.common.records import PreferencePair, SftExample
from jobs.common.settings import DpoSettings, SftSettings
from jobs.common.speed import Amount
from jobs.common.stage import RunContext

Section = Literal["sft", "dpo"]

BYTES_PER_TOKEN = 5.0
"""Bytes of text in a token, on average: long-worded English has 5 to 6, other languages fewer."""
TEMPLATE_TOKENS = 12
"""What a chat template puts around a prompt and an answer."""
PROMPT_TOKENS, ANSWER_TOKENS = 35, 280
"""Assumed length of a red-team prompt and of an answer, where there is no data yet."""
USABLE_TWINS = 0.9
"""Assumed share of the prompts that get a benign twin."""
MIX_IN_TOKENS = 700
"""Assumed length of a row mixed in, and of either side of a pair, prompt included."""
MOST_HELD_OUT = 256
"""Held-out rows that are evaluated at most."""


@dataclass(frozen=True)
class Length:
    """Positions of one row or pair in a forward pass; a pair's prompt is laid down once."""

    prompt: int
    answers: tuple[int, ...]
    """One answer, or chosen and rejected."""

    @property
    def positions(self) -> int:
        """Positions it takes."""
        return self.prompt + sum(self.answers)

    def cut(self, max_length: int) -> Length:
        """As it is trained: every answer ends where its row does."""
        prompt = min(self.prompt, max_length - 1)
        return Length(prompt, tuple(min(answer, max_length - prompt) for answer in self.answers))


@dataclass(frozen=True)
class Rows:
    """The rows of one training stage."""

    lengths: list[Length]
    """Of every row, mixed-in ones last."""
    mixed: int
    """How many are mixed in; their length is assumed."""
    held_out: list[Length]
    """Rows behind one evaluation."""
    measured: str
    """Stage whose files they were measured in; empty where they are assumed."""
    most: int
    """Positions of the longest row or pair there may be."""

    @property
    def mean(self) -> float:
        """Positions of a row, on average."""
        return fmean(length.positions for length in self.lengths)

    @property
    def amount(self) -> Amount:
        """Rows and tokens as the trainer counts them before it lays a pair's prompt down once."""
        return Amount(len(self.lengths), sum(it.prompt * len(it.answers) + sum(it.answers) for it in self.lengths))

    @property
    def scored_share(self) -> float:
        """Share of the positions that are scored: the answers'."""
        return sum(sum(it.answers) for it in self.lengths) / sum(it.positions for it in self.lengths)

    @property
    def context(self) -> float:
        """Positions that a position attends to, on average."""
        return causal_context([it.prompt + answer for it in self.lengths for answer in it.answers])

    def largest_step(self, batch_size: int) -> int:
        """Positions of a large step: its mean and two standard deviations, at least the longest row."""
        sizes = [it.positions for it in self.lengths]
        return max(max(sizes), round(batch_size * fmean(sizes) + 2 * pstdev(sizes) * sqrt(batch_size)))


def rows_of(context: RunContext, section: Section) -> Rows | None:
    """The rows of a stage; None where the recipe leaves none for it.

    Raises:
        DataError: a finished data stage's file is damaged.
        ConfigError: the constitution is wrong.
    """
    settings: SftSettings | DpoSettings = getattr(context.recipe, section)
    stage = next((name for name in ("repair", "generate") if _finished(context, name)), "")
    if stage:
        own = [it.cut(settings.max_length) for it in _read(context.folder / stage, section)]
        held_out = [it.cut(settings.max_length) for it in _read(context.folder / stage, section, "held_out_")]
    else:
        own, held_out = _assumed(context, section)
    if not own:
        return None
    answers = len(own[0].answers)
    other = Length(MIX_IN_TOKENS // 3, (MIX_IN_TOKENS * 2 // 3,) * answers).cut(settings.max_length)
    mixed = sum(round(it.weight * len(own)) for it in settings.mix_in)
    lengths = [*own, *[other] * mixed]
    most = max(it.positions for it in lengths) if stage and not mixed else answers * settings.max_length
    return Rows(lengths, mixed, held_out[:MOST_HELD_OUT], stage, most)


def _finished(context: RunContext, stage: str) -> bool:
    return (context.folder / stage / "manifest.json").exists()


def _read(folder: Path, section: Section, prefix: str = "") -> list[Length]:
    if section == "sft":
        examples = read_records(folder / f"{prefix}sft.jsonl", SftExample)
        return [Length(_prompt(it.prompt), (_answer(it.completion),)) for it in examples]
    pairs = read_records(folder / f"{prefix}pairs.jsonl", PreferencePair)
    return [Length(_prompt(it.prompt), (_answer(it.chosen), _answer(it.rejected))) for it in pairs]


def _assumed(context: RunContext, section: Section) -> tuple[list[Length], list[Length]]:
    """Every prompt wanted gives a row: nothing is dropped."""
    settings, recipe = context.recipe.generate, context.recipe
    held_out, trained = _prompts(context.constitution(), context)
    share = settings.sft_fraction if section == "sft" else 1 - settings.sft_fraction
    answers = (min(ANSWER_TOKENS, round(0.9 * settings.response_tokens)),) * (1 if section == "sft" else 2)
    length = Length(PROMPT_TOKENS + TEMPLATE_TOKENS, answers).cut(getattr(recipe, section).max_length)
    return [length] * round(trained * share), [length] * round(held_out)


def _prompts(constitution: Constitution, context: RunContext) -> tuple[float, float]:
    """Prompts with their twins: held out, and trained on."""
    settings = context.recipe.generate
    each = settings.prompts_per_principle * (1 + USABLE_TWINS if settings.benign_twins else 1)
    closed = sum(it.id in settings.held_out_principles for it in constitution.principles)
    open_ = len(constitution.principles) - closed
    return each * (closed + open_ * settings.held_out_fraction), each * open_ * (1 - settings.held_out_fraction)


def _prompt(text: str) -> int:
    return _answer(text) + TEMPLATE_TOKENS


def _answer(text: str) -> int:
    return 1 + round(len(text.encode()) / BYTES_PER_TOKEN)
