"""Rows of tokens laid end to end in one flat sequence, each attending to itself alone: no padding is computed.

A preference pair can share its prompt: [prompt][chosen][rejected], where the rejected side attends to the prompt and
itself (prefix sharing, arXiv 2410.20305).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

MULTIPLE = {"cuda": 256, "cpu": 1}
"""Positions of a forward pass come in multiples of this: matrix products of odd sizes are slow on a GPU."""


@dataclass(frozen=True)
class Row:
    """One sequence."""

    ids: Sequence[int]
    """Token ids, prompt first."""
    scored: Sequence[range]
    """Where the scored tokens are: one piece for each answer, in order, none at position 0."""

    @property
    def scored_tokens(self) -> int:
        """How many tokens are scored."""
        return sum(map(len, self.scored))


@dataclass(frozen=True)
class PairIds:
    """Token ids of one preference pair."""

    prompt: Sequence[int]
    """What both sides follow; at least one token."""
    chosen: Sequence[int]
    rejected: Sequence[int]


@dataclass(frozen=True)
class Packed:
    """One forward pass; T positions, N scored tokens, all on one device."""

    input_ids: Any
    """(1, T) int64."""
    position_ids: Any
    """(1, T) int64; starts again at 0 with every row."""
    positions: Any
    """(N,) int64: the position whose hidden state predicts each scored token."""
    targets: Any
    """(N,) int64: the scored tokens."""
    owner: Any
    """(N,) int64: which row each scored token belongs to. Pairs: every chosen side, then every rejected side."""
    attention: dict[str, Any]
    """Arguments of the attention: where segments begin and end."""
    rows: int
    """Sequences that are scored: rows, or twice the pairs."""
    tokens: int
    """Tokens of all rows, each prompt counted with every side it belongs to; without padding."""


@dataclass
class _Layout:
    ids: list[int] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    """Position of every token within its row."""
    queries: list[int] = field(default_factory=list)
    """Length of every segment, as it asks."""
    keys: list[int] = field(default_factory=list)
    """Length of what every segment attends to."""
    source: list[int] = field(default_factory=list)
    """Position of every key, segment after segment."""
    scored: list[tuple[int, int, int]] = field(default_factory=list)
    """(position, target, owner)."""

    def segment(self, ids: Sequence[int], prefix: range = range(0)) -> range:
        """Lay down one segment that attends to `prefix` (positions already laid) and to itself."""
        begin = len(self.ids)
        self.ids += ids
        self.at += range(len(prefix), len(prefix) + len(ids))
        self.queries.append(len(ids))
        self.keys.append(len(prefix) + len(ids))
        self.source += [*prefix, *range(begin, begin + len(ids))]
        return range(begin, begin + len(ids))

    def score(self, before: int, segment: range, owner: int) -> None:
        """Score a segment's tokens; `before` is the position in front of its first."""
        positions = [before, *segment[:-1]]
        self.scored += [(at, self.ids[token], owner) for at, token in zip(positions, segment, strict=True)]


def pack(rows: Sequence[Row], device: Any) -> Packed:
    """Rows as one forward pass.

    Args:
        rows: at least one.
        device: where the tensors go; T is rounded up to a `MULTIPLE` of it, with a segment that nothing scores.
    """
    layout = _Layout()
    for owner, row in enumerate(rows):
        whole = layout.segment(row.ids)
        for piece in row.scored:
            layout.score(whole[piece.start - 1], whole[piece.start : piece.stop], owner)
    return _tensors(layout, device, len(rows), sum(len(row.ids) for row in rows))


def pack_pairs(pairs: Sequence[PairIds], device: Any, share: bool) -> Packed:
    """Pairs as one forward pass; rows are every chosen side, then every rejected side.

    Args:
        pairs: at least one.
        device: where the tensors go; T is rounded up to a `MULTIPLE` of it, with a segment that nothing scores.
        share: lay each prompt down once instead of twice.
    """
    layout = _Layout()
    for number, pair in enumerate(pairs):
        whole = layout.segment([*pair.prompt, *pair.chosen])
        prompt, chosen = whole[: len(pair.prompt)], whole[len(pair.prompt) :]
        layout.score(prompt[-1], chosen, number)
        if share:
            rejected = layout.segment(pair.rejected, prompt)
        else:
            again = layout.segment([*pair.prompt, *pair.rejected])
            prompt, rejected = again[: len(pair.prompt)], again[len(pair.prompt) :]
        layout.score(prompt[-1], rejected, len(pairs) + number)
    tokens = sum(2 * len(pair.prompt) + len(pair.chosen) + len(pair.rejected) for pair in pairs)
    return _tensors(layout, device, 2 * len(pairs), tokens)


def _rounded(length: int) -> int:
    # An upper bound is all the kernels ask for; few distinct values mean few compilations.
    return max(128, 1 << (length - 1).bit_length())


def positions_of(pair: PairIds, share: bool) -> int:
    """Positions a pair takes in a forward pass."""
    return (1 if share else 2) * len(pair.prompt) + len(pair.chosen) + len(pair.rejected)


def _tensors(layout: _Layout, device: Any, rows: int, tokens: int) -> Packed:
    import torch

    if missing := -len(layout.ids) % MULTIPLE[torch.device(device).type]:
        layout.segment([0] * missing)
    positions, targets, owner = zip(*layout.scored, strict=True)

    def tensor(values: Sequence[int], dtype: Any = torch.int64) -> Any:
        return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)

    attention: dict[str, Any] = {
        "cu_seq_lens_q": tensor([0, *accumulate(layout.queries)], torch.int32),
        "cu_seq_lens_k": tensor([0, *accumulate(layout.keys)], torch.int32),
        "max_length_q": _rounded(max(layout.queries)),
        "max_length_k": _rounded(max(layout.keys)),
    }
    if torch.device(device).type == "cpu":  # compiled code would be made anew for every tuple
        attention["lengths"] = (tuple(layout.queries), tuple(layout.keys))
    if len(layout.source) > len(layout.ids):
        attention["key_source"] = tensor(layout.source)
    return Packed(
        input_ids=tensor(layout.ids)[None],
        position_ids=tensor(layout.at)[None],
        positions=tensor(positions),
        targets=tensor(targets),
        owner=tensor(owner),
        attention=attention,
        rows=rows,
        tokens=tokens,
    )
