"""What must be true before a GPU hour is spent. Each guard stops the stage with one line; none only warns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.common.errors import ConfigError, DataError
from jobs.common.stage import OpenStage

IGNORED = -100
"""Label of a token that is not trained."""

REFERENCE_TOLERANCE = {"fp32": 1e-5, "bf16": 2e-2}
"""Most that log-probabilities may move per token with the batch they are computed in.

In bf16 a side of an answer moved by up to 0.0015 per token (SmolLM2-135M, CPU, passes of one pair to 4,096 tokens); the
limit leaves room for the many kernels of a GPU.
"""


@dataclass(frozen=True)
class TurnTokens:
    """What the guards know of the student's template."""

    end_of_turn: int
    """Token that ends an assistant turn."""
    bos: int | None
    """Token that must open a row and never come again; None where the template has none."""


@dataclass(frozen=True)
class MaskedRow:
    """One row as it will be trained."""

    id: str
    input_ids: Sequence[int]
    labels: Sequence[int]
    prompt_ids: Sequence[int]
    """What the same prompt looks like when the model is asked."""
    cut: bool
    """True where max_length removed its end."""


def turn_tokens(tokenizer: Any, end_of_turn: int) -> TurnTokens:
    """Read the template's tokens off the tokenizer; a BOS that the template uses to open turns does not count."""
    uses_bos = "bos_token" in (tokenizer.chat_template or "")
    return TurnTokens(end_of_turn, int(tokenizer.bos_token_id) if uses_bos else None)


def check_row(row: MaskedRow, tokens: TurnTokens, tokenizer: Any) -> None:
    """Check one row's loss mask.

    Raises:
        DataError: a prompt token is trained, the end of turn is not, text follows it, or BOS is not there exactly once.
    """
    start = next((i for i, label in enumerate(row.labels) if label != IGNORED), len(row.labels))
    trained = list(row.labels[start:])
    where = f"Row {row.id}: "
    if not trained:
        raise DataError(where + "no token is trained. The chat template or max_length is wrong.")
    if IGNORED in trained or trained != list(row.input_ids[start:]):
        raise DataError(where + "the trained tokens are not one piece at the end of the row. The loss mask is wrong.")
    if list(row.input_ids[:start]) != list(row.prompt_ids):
        raise DataError(
            where + f"the mask starts at token {start}, but system and user turns are {len(row.prompt_ids)} tokens: "
            "they would be trained, or are not what the model sees when asked. The chat template is wrong."
        )
    if tokens.bos is not None and (list(row.input_ids).count(tokens.bos) != 1 or row.input_ids[0] != tokens.bos):
        found = list(row.input_ids).count(tokens.bos)
        raise DataError(where + f"{found} BOS tokens, expected exactly one, at the start. The chat template is wrong.")
    if row.cut:
        return
    ends = [i for i, token in enumerate(trained) if token == tokens.end_of_turn]
    if len(ends) != 1:
        raise DataError(
            where + f"the end-of-turn token is trained {len(ends)} times, expected once: the model would never stop."
        )
    after = tokenizer.decode(trained[ends[0] + 1 :])
    if after.strip():
        raise DataError(where + f"text follows the end of turn: {after[:40]!r}. The chat template is wrong.")


def check_generation_markers(row: MaskedRow, assistant_mask: Sequence[int], tokenizer: Any) -> None:
    """Compare the mask with the template's own {% generation %} markers, found independently.

    Raises:
        DataError: they differ by more than white space.
    """
    for i, (token, label) in enumerate(zip(row.input_ids, row.labels, strict=True)):
        if (label != IGNORED) != bool(assistant_mask[i]) and tokenizer.decode([token]).strip():
            raise DataError(
                f"Row {row.id}: token {i} ({tokenizer.decode([token])!r}) is trained by the mask or by the template's "
                "generation markers, but not by both. The chat template is wrong."
            )


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
    """No row may be longer than the student's sliding window: in a packed pass a token attends to all of its row.

    Raises:
        ConfigError: one may be.
    """
    window, section = getattr(config, "sliding_window", None), stage.plan.name
    if window and max_length > window:
        raise ConfigError(
            f"{section}: max_length {max_length} is beyond the sliding window of {window} tokens that the student "
            f"attends to. Run: {stage.context.command(section, '--redo', f'--set {section}.max_length={window}')}"
        )


def check_same_adapters(policy: dict[str, Any], saved: dict[str, Any]) -> None:
    """The policy must be the saved SFT adapter, bit by bit, before the first step: that adapter is the reference.

    Raises:
        DataError: it is not, or is not fp32.
    """
    import torch

    if policy.keys() != saved.keys() or not policy:
        raise DataError("dpo: policy and reference adapter have different layers. Run: cai sft --redo")
    for name, weight in policy.items():
        if weight.dtype != torch.float32 or not torch.equal(weight.cpu(), saved[name]):
            raise DataError(
                f"dpo: policy and reference differ at the start ({name}, {weight.dtype}): the reference would not be "
                "the SFT model. Run: cai sft --redo"
            )


def check_reference_kept(before: str, after: str) -> None:
    """The reference must not move while the policy trains, through a resume or otherwise.

    Args:
        before: hash of the reference's log-probabilities at the first step.
        after: the same now.

    Raises:
        DataError: it did.
    """
    if before != after:
        raise DataError(
            f"dpo: the reference changed during training ({before[:12]} at the start, now {after[:12]}). "
            "Run: cai dpo --redo"
        )


def check_start(figures: dict[str, float]) -> None:
    """Rewards and margins of one forward pass must be exactly 0 before the first step.

    Raises:
        DataError: one is not 0; names it.
    """
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins"):
        if figures[name] != 0.0:
            raise DataError(f"dpo: {name} of the first batch is {figures[name]!r} before training, expected exactly 0.")


def check_stored_reference(error: float, precision: str, folder: object) -> None:
    """Stored reference log-probabilities must be what the SFT model gives now, within rounding.

    Args:
        error: difference per token, over all sides of one forward pass.
        precision: `bf16` or `fp32`.
        folder: where they are stored.

    Raises:
        DataError: they are not; another model, or other weights, wrote them.
    """
    if not error <= REFERENCE_TOLERANCE[precision]:
        raise DataError(
            f"dpo: stored reference log-probabilities are {error:.2g} per token off what the SFT model gives now "
            f"(limit {REFERENCE_TOLERANCE[precision]:g} in {precision}). "
            f"Remove {folder} and run: cai dpo --redo"
        )


def show_mask(row: MaskedRow, tokenizer: Any) -> str:
    """One row for people, with what is trained between [[ and ]]."""
    start = next((i for i, label in enumerate(row.labels) if label != IGNORED), len(row.labels))
    context, trained = tokenizer.decode(row.input_ids[:start]), tokenizer.decode(row.input_ids[start:])
    counted = f"{len(row.input_ids) - start} of {len(row.input_ids)} tokens are trained"
    return f"Row {row.id}: {counted}, between [[ and ]]:\n{context}[[{trained}]]\n"
