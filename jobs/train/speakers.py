"""A base model with finished adapters that can speak as base, SFT or DPO: what respond, chat and export load."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from jobs.common.errors import ConfigError
from jobs.common.fetched import load_fetched
from jobs.common.held_out import System
from jobs.common.manifest import finished_manifest
from jobs.common.stage import RunContext
from jobs.train import adapters
from jobs.train.device import Device, choose_device, choose_precision
from jobs.train.student import Student, end_of_turn, find_student, load_model, load_tokenizer, set_special_tokens

Trained = Literal["sft", "dpo"]

DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
"""A recipe's `precision` → the dtype that manifests name."""


@dataclass(frozen=True)
class Weights:
    """How the frozen weights were held while an adapter was trained."""

    quantization: str
    """`none` or `nf4`."""
    dtype: str
    """`bfloat16` or `float32`: of the weights, and of the products where they are 4-bit."""


@dataclass(frozen=True)
class Speaker:
    """Everything that answers need."""

    model: Any
    tokenizer: Any
    student: Student
    device: Device
    adapter_names: tuple[Trained, ...]

    @contextmanager
    def speaking_as(self, system: System) -> Iterator[None]:
        """The model answers as one system while this is open."""
        if system != "base":
            self.model.set_adapter(system)
            yield
        elif self.adapter_names:
            with self.model.disable_adapter():
                yield
        else:
            yield


def weights_of(context: RunContext, stage: Trained) -> Weights:
    """How a finished training stage held the frozen weights.

    Raises:
        ConfigError: the stage has not finished, or the recipe names another student or template than it trained.
        DataError: its manifest is damaged.
    """
    manifest = finished_manifest(context, stage)
    for key, now in context.recipe.student.model_dump(mode="json").items():
        if (before := manifest["recipe"]["student"].get(key)) != now:
            raise ConfigError(
                f"{context.folder / stage} was trained with student.{key}={before}, the recipe has {now}. "
                f"Give the run's own recipe (--recipe), or --set student.{key}={before}"
            )
    return Weights(manifest["recipe"][stage]["quantization"], manifest["measures"]["weights_dtype"])


def untrained_weights(context: RunContext) -> Weights:
    """How dpo would hold the frozen weights on this machine: for the base alone, which no stage needs to precede."""
    settings = context.recipe.dpo
    return Weights(settings.quantization, DTYPES[choose_precision(settings.precision, choose_device())])


def load_speaker(context: RunContext, names: Sequence[Trained], weights: Weights) -> Speaker:
    """The student with these finished adapters, each under its stage's name.

    Raises:
        DataError: weights or an adapter are missing or do not fit each other.
    """
    device, student = choose_device(), find_student(context, load_fetched(context))
    tokenizer = load_tokenizer(student)
    precision = next(name for name, dtype in DTYPES.items() if dtype == weights.dtype)
    model = load_model(student, weights.quantization, device, precision, "sdpa")
    set_special_tokens(model, tokenizer, end_of_turn(tokenizer, student))
    for name in names:
        model = adapters.load_adapter(model, adapters.adapter_of(context, name), student, name=name)
    return Speaker(model.eval(), tokenizer, student, device, tuple(names))
