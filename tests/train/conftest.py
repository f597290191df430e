"""Tiny random students that go through the real trainers in seconds."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.common.fetched import FetchedFile
from jobs.common.stage import RunContext
from jobs.train.device import go_offline
from tests.train.builders import (
    ANSWERS,
    REJECTED,
    SENTENCES,
    finish_fetch,
    finish_generate,
    make_context,
    small_generate,
)

go_offline()

TINY = {
    "batch_size": 4,
    "micro_batch_tokens": 256,  # one or two rows: several forward passes per step
    "precision": "fp32",  # the same on every CPU
    "max_steps": 3,
    "max_length": 256,
    "lora": {"rank": 4, "alpha": 8},
}
"""Settings of a run of seconds; dpo has no lora of its own."""


@pytest.fixture(scope="session")
def students(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a tiny student by template, built on first use."""
    built: dict[str, Path] = {}

    def get(template: str) -> Path:
        if template not in built:
            folder = tmp_path_factory.mktemp("students") / f"tiny-{template}"
            built[template] = save_student(folder, _tokenizer(template), template)
        return built[template]

    return get


@pytest.fixture(scope="session")
def tokenizer(students: Callable[[str], Path]) -> Any:
    """The tiny ChatML student's, with our template."""
    from jobs.train.student import Student, load_tokenizer

    return load_tokenizer(Student(students("chatml"), "tiny", "1", "chatml", "again"))


@pytest.fixture
def tiny_run(tmp_path: Path, students: Callable[[str], Path]) -> Callable[..., RunContext]:
    """A run with finished fetch and generate stages: `tiny_run(template="mistral", sft={...})`."""

    def make(
        template: str = "chatml",
        student: Path | None = None,
        files: dict[str, Any] | None = None,
        mixed: dict[str, FetchedFile] | None = None,
        **changes: Any,
    ) -> RunContext:
        recipe = {
            "student": {"chat_template": template},
            "sft": TINY | changes.pop("sft", {}),
            "dpo": {key: value for key, value in TINY.items() if key != "lora"}
            | {"learning_rate": 1e-3}
            | changes.pop("dpo", {}),
            "respond": {"max_new_tokens": 8, "batch_size": 4, "show": 1} | changes.pop("respond", {}),
        }
        context = make_context(tmp_path / "runs", **(recipe | changes))
        finish_fetch(context, student or students(template), mixed)
        finish_generate(context, small_generate() if files is None else files)
        return context

    return make


def save_student(folder: Path, tokenizer: Any, template: str = "chatml") -> Path:
    """A tiny random student with this tokenizer; returns its folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

        config_class, model_class = {
            "chatml": (LlamaConfig, LlamaForCausalLM),
            "mistral": (MistralConfig, MistralForCausalLM),
        }[template]
        torch.manual_seed(0)
        config = config_class(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=None,
        )
        model_class(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(template: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = {
        "chatml": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        "mistral": ["<unk>", "<s>", "</s>"],
    }[template]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([*SENTENCES, *ANSWERS, *REJECTED] * 3, trainer)
    unknown, begin, end = special
    # pad = end, as many published tokenizers have it: the jobs must choose another.
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token=unknown, bos_token=begin, eos_token=end, pad_token=end
    )
