"""Answers in batches: prompts of like length together, padded on the left, the longest first.

The longest batch needs the most memory, so a GPU that is too small says so before anything was spent on the others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.train.draws import own_draws
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


def answer_batches(
    model: Any, tokenizer: Any, prompts: Sequence[str], sampling: Sampling, known: Collection[int] = ()
) -> Iterator[dict[int, Answer]]:
    """Answer every prompt as a single user turn; yields each batch's answers by position in `prompts`.

    A batch whose positions are all in `known` is left out. Which prompts share a batch depends on the whole list only,
    so going on after a stop gives what an undisturbed run gives.
    """
    encoded = [encode(tokenizer, said("user", prompt), ask=True) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda i: (-len(encoded[i]), i))
    model.eval()
    for first in range(0, len(order), sampling.batch_size):
        batch = order[first : first + sampling.batch_size]
        if not all(i in known for i in batch):
            drawn = _how(sampling, [prompts[i] for i in batch], model)
            yield dict(zip(batch, _generate(model, tokenizer, [encoded[i] for i in batch], drawn), strict=True))


def _how(sampling: Sampling, batch: Sequence[str], model: Any) -> dict[str, Any]:
    greedy = {"max_new_tokens": sampling.max_new_tokens, "do_sample": False}
    if sampling.temperature == 0:
        return greedy
    seeds = [f"{sampling.seed} {prompt}" for prompt in batch]
    return greedy | {"logits_processor": own_draws(sampling.temperature, sampling.top_p, seeds, model.device)}


def _generate(model: Any, tokenizer: Any, batch: list[list[int]], how: dict[str, Any]) -> list[Answer]:
    import torch

    padded = tokenizer.pad({"input_ids": batch}, padding=True, padding_side="left", return_tensors="pt")
    with torch.inference_mode():
        output = model.generate(
            input_ids=padded["input_ids"].to(model.device),
            attention_mask=padded["attention_mask"].to(model.device),
            **how,
        )
    ends = set(model.generation_config.eos_token_id)
    return [_answer(ids, ends, tokenizer) for ids in output[:, padded["input_ids"].shape[1] :].tolist()]


def _answer(ids: list[int], ends: set[int], tokenizer: Any) -> Answer:
    stop = next((i for i, token in enumerate(ids) if token in ends), None)
    kept = ids if stop is None else ids[: stop + 1]
    return Answer(tokenizer.decode(kept, skip_special_tokens=True).strip(), len(kept), stop is None)
