"""Answers in batches: prompts of like length together, padded on the left, in the order they came."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.train.examples import encode, said


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn."""

    max_new_tokens: int
    batch_size: int
    temperature: float = 0.0
    """0 means greedy."""
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """One answer."""

    text: str
    """Special tokens removed."""
    tokens: int
    """Length in tokens, the end-of-turn token included."""
    truncated: bool
    """True where it hit the limit."""


def answer_prompts(
    model: Any, tokenizer: Any, prompts: Sequence[str], sampling: Sampling, done: Callable[[int], None]
) -> list[Answer]:
    """Answer every prompt as a single user turn; `done` hears how many are answered after each batch."""
    from transformers import set_seed

    encoded = [encode(tokenizer, said("user", prompt), ask=True) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda i: (len(encoded[i]), i))
    answers: dict[int, Answer] = {}
    set_seed(sampling.seed)
    model.eval()
    for first in range(0, len(order), sampling.batch_size):
        batch = order[first : first + sampling.batch_size]
        for i, answer in zip(batch, _generate(model, tokenizer, [encoded[i] for i in batch], sampling), strict=True):
            answers[i] = answer
        done(len(answers))
    return [answers[i] for i in range(len(prompts))]


def _generate(model: Any, tokenizer: Any, batch: list[list[int]], sampling: Sampling) -> list[Answer]:
    import torch

    padded = tokenizer.pad({"input_ids": batch}, padding=True, padding_side="left", return_tensors="pt")
    drawn: dict[str, Any] = {"do_sample": False}
    if sampling.temperature > 0:
        drawn = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
    with torch.inference_mode():
        output = model.generate(
            input_ids=padded["input_ids"].to(model.device),
            attention_mask=padded["attention_mask"].to(model.device),
            max_new_tokens=sampling.max_new_tokens,
            **drawn,
        )
    ends = set(model.generation_config.eos_token_id)
    return [_answer(ids, ends, tokenizer) for ids in output[:, padded["input_ids"].shape[1] :].tolist()]


def _answer(ids: list[int], ends: set[int], tokenizer: Any) -> Answer:
    stop = next((i for i, token in enumerate(ids) if token in ends), None)
    kept = ids if stop is None else ids[: stop + 1]
    return Answer(tokenizer.decode(kept, skip_special_tokens=True).strip(), len(kept), stop is None)
