"""Sampling with random numbers of each prompt's own, so that an answer does not depend on what shares its batch.

The library draws a whole batch from one generator: another batch size, or a run that goes on after a stop, would change
every answer. Here a row is drawn by the Gumbel-max trick (argmax of log p plus Gumbel noise is a draw from p), with
noise from a generator seeded for that row, while `generate` itself decodes greedily.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any


def own_draws(temperature: float, top_p: float, seeds: Sequence[str], device: Any) -> Any:
    """Logits processors for `generate(do_sample=False)`: temperature, nucleus, then the noise of each row.

    Args:
        temperature: above 0.
        top_p: probability mass kept.
        seeds: one text for each row of the batch; equal texts draw equal numbers.
        device: where the logits are.
    """
    import torch
    from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

    generators = [torch.Generator(device).manual_seed(_number(seed)) for seed in seeds]

    def add_noise(_input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Add Gumbel noise to scores of shape (rows, vocabulary)."""
        rows = [torch.empty_like(row).exponential_(generator=own) for row, own in zip(scores, generators, strict=True)]
        return scores - torch.stack(rows).clamp_min_(torch.finfo(scores.dtype).tiny).log_()

    nucleus = [TopPLogitsWarper(top_p)] if top_p < 1 else []
    return LogitsProcessorList([TemperatureLogitsWarper(temperature), *nucleus, add_noise])


def _number(seed: str) -> int:
    return int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "big") >> 1
