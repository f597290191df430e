"""What must be true before a GPU hour is spent. Each guard stops the stage with one line; none only warns."""

from __future__ import annotations

from typing import Any

from jobs.common.errors import DataError
from jobs.common.row_limit import require_rows_fit
from jobs.common.stage import OpenStage

REFERENCE_TOLERANCE = {"fp32": 1e-5, "bf16": 2e-2}
"""Most that log-probabilities may move per token with the batch they are computed in.

In bf16 a side of an answer moved by up to 0.0015 per token (SmolLM2-135M, CPU, passes of one pair to 4,096 tokens); the
limit leaves room for the many kernels of a GPU.
"""


def check_padding(generation_config: Any, pad: int) -> None:
    """Padding must never end an answer, or evaluation of the trained model stops at once.

    Raises:
        DataError: the pad token is among the tokens that end an answer, or is another one.
    """
    ends = generation_config.eos_token_id
    ends = [ends] if isinstance(ends, int) else list(ends or [])
    if generation_config.pad_token_id != pad or pad in ends:
        raise DataError(
            f"generation config: pad token {generation_config.pad_token_id}, tokenizer pads with {pad}, "
            f"end tokens {ends}: padding must be the tokenizer's and must not end an answer."
        )


def check_window(config: Any, max_length: int, stage: OpenStage) -> None:
    """No row may be longer than the student's positions or its sliding window.

    Raises:
        ConfigError: one may be.
    """
    section = stage.plan.name
    require_rows_fit(config.to_dict(), section, max_length, stage.context.command(section, "--redo"))


def check_same_adapters(policy: dict[str, Any], saved: dict[str, Any], again: str) -> None:
    """The policy must be the saved SFT adapter, bit by bit, before the first step: that adapter is the reference.

    Raises:
        DataError: it is not, or is not fp32; `again` is the command that trains sft anew.
    """
    import torch

    if policy.keys() != saved.keys() or not policy:
        raise DataError(f"dpo: policy and reference adapter have different layers. Run: {again}")
    for name, weight in policy.items():
        if weight.dtype != torch.float32 or not torch.equal(weight.cpu(), saved[name]):
            raise DataError(
                f"dpo: policy and reference differ at the start ({name}, {weight.dtype}): the reference would not be "
                f"the SFT model. Run: {again}"
            )


def check_reference_kept(before: str, after: str, again: str) -> None:
    """The reference must not move while the policy trains, through a resume or otherwise.

    Args:
        before: hash of the reference's log-probabilities at the first step.
        after: the same now.
        again: the command that trains dpo anew; for messages.

    Raises:
        DataError: it did.
    """
    if before != after:
        changed = f"{before[:12]} at the start, now {after[:12]}"
        raise DataError(f"dpo: the reference changed during training ({changed}). Run: {again}")


def check_start(figures: dict[str, float]) -> None:
    """Rewards and margins of one forward pass must be exactly 0 before the first step.

    Raises:
        DataError: one is not 0; names it.
    """
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins"):
        if figures[name] != 0.0:
            raise DataError(f"dpo: {name} of the first batch is {figures[name]!r} before training, expected exactly 0.")


def check_stored_reference(error: float, precision: str, folder: object, again: str) -> None:
    """Stored reference log-probabilities must be what the SFT model gives now, within rounding.

    Args:
        error: difference per token, over all sides of one forward pass.
        precision: `bf16` or `fp32`.
        folder: where they are stored.
        again: the command that trains dpo anew; for messages.

    Raises:
        DataError: they are not; another model, or other weights, wrote them.
    """
    if not error <= REFERENCE_TOLERANCE[precision]:
        raise DataError(
            f"dpo: stored reference log-probabilities are {error:.2g} per token off what the SFT model gives now "
            f"(limit {REFERENCE_TOLERANCE[precision]:g} in {precision}). "
            f"Remove {folder} and run: {again}"
        )
