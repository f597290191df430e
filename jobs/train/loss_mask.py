"""Which tokens of a row are trained: the assistant's answers with the tokens that end them, and nothing else.

Both trainers mask with TRL's columns; what they came to is checked here against the conversation, for every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from jobs.common.errors import DataError
from jobs.train.examples import Row, encode

IGNORED = -100
"""Label of a token that is not trained."""


@dataclass(frozen=True)
class TurnTokens:
    """What the checks know of the student's template."""

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
    asked: Sequence[Sequence[int]]
    """For every answer that is trained: the tokens of the conversation when the model is asked for it."""
    cut: bool
    """True where max_length removed its end."""


def turn_tokens(tokenizer: Any, end_of_turn: int) -> TurnTokens:
    """Read the template's tokens off the tokenizer; a BOS that the template uses to open turns does not count."""
    uses_bos = "bos_token" in (tokenizer.chat_template or "")
    return TurnTokens(end_of_turn, int(tokenizer.bos_token_id) if uses_bos else None)


def sft_columns(rows: Sequence[Row], tokenizer: Any) -> list[dict[str, Any]]:
    """SFT rows as TRL takes them: `prompt` and `completion`, of which every token is trained.

    Where a completion goes on after its first answer, TRL's column `assistant_masks` keeps what others say in it out of
    the loss: then the tokens between the template's {% generation %} markers are trained, and those alone.
    """
    found = [row.for_trl() for row in rows]
    if any(len(row.answers["completion"]) > 1 for row in rows):
        for row, columns in zip(rows, found, strict=True):
            columns["assistant_masks"] = _mask(row, tokenizer)
    return found


def _mask(row: Row, tokenizer: Any) -> list[int]:
    turns = row.prompt + row.answers["completion"]
    if len(row.answers["completion"]) == 1:
        return [1] * len(encode(tokenizer, turns))
    whole = tokenizer.apply_chat_template(turns, return_dict=True, return_assistant_tokens_mask=True)
    return list(whole["assistant_masks"])


def trained_pieces(labels: Sequence[int]) -> list[range]:
    """Where the trained tokens are: the runs of labels that are not ignored, in order."""
    pieces = []
    at = 0
    for trained, run in groupby(label != IGNORED for label in labels):
        begin, at = at, at + len(list(run))
        if trained:
            pieces.append(range(begin, at))
    return pieces


def check_row(row: MaskedRow, tokens: TurnTokens, tokenizer: Any) -> None:
    """Check one row's loss mask.

    Raises:
        DataError: a token before or between answers is trained, an answer or its end of turn is not, text follows that
            end, or BOS is not there exactly once.
    """
    where = f"Row {row.id}: "
    pieces = trained_pieces(row.labels)
    if not pieces:
        raise DataError(where + "no token is trained. The chat template or max_length is wrong.")
    if any(list(row.labels[it.start : it.stop]) != list(row.input_ids[it.start : it.stop]) for it in pieces):
        raise DataError(where + "a label is another token than the row's. The loss mask is wrong.")
    if len(pieces) != len(row.asked):
        raise DataError(where + f"{len(pieces)} pieces are trained, expected {len(row.asked)}: one for each answer.")
    for piece, asked in zip(pieces, row.asked, strict=True):
        _check_piece(row, piece, asked, tokens, tokenizer)
    if tokens.bos is not None and (list(row.input_ids).count(tokens.bos) != 1 or row.input_ids[0] != tokens.bos):
        found = list(row.input_ids).count(tokens.bos)
        raise DataError(where + f"{found} BOS tokens, expected exactly one, at the start. The chat template is wrong.")


def _check_piece(row: MaskedRow, piece: range, asked: Sequence[int], tokens: TurnTokens, tokenizer: Any) -> None:
    where = f"Row {row.id}: "
    if list(row.input_ids[: piece.start]) != list(asked):
        raise DataError(
            where
            + f"the mask starts at token {piece.start}, but what comes before that answer is {len(asked)} tokens: "
            "they would be trained, or are not what the model sees when asked. The chat template is wrong."
        )
    if row.cut and piece.stop == len(row.input_ids):
        return
    trained = list(row.input_ids[piece.start : piece.stop])
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


def show_mask(row: MaskedRow, tokenizer: Any) -> str:
    """One row for people, with what is trained between [[ and ]]."""
    text, at = "", 0
    pieces = trained_pieces(row.labels)
    for piece in pieces:
        context, trained = (row.input_ids[at : piece.start], row.input_ids[piece.start : piece.stop])
        text += f"{tokenizer.decode(context)}[[{tokenizer.decode(trained)}]]"
        at = piece.stop
    counted = f"{sum(map(len, pieces))} of {len(row.input_ids)} tokens are trained"
    return f"Row {row.id}: {counted}, between [[ and ]]:\n{text}{tokenizer.decode(row.input_ids[at:])}\n"
