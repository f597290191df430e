"""Which prompts are held out, which train SFT, which train DPO: decided once, before any reply is paid for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from jobs.common.records import Split


@dataclass(frozen=True)
class SplitShares:
    """How prompts are shared out."""

    held_out: float
    """Share of all prompts that no training stage may see, 0 to 1."""
    sft: float
    """Share of the rest that goes to SFT, 0 to 1; what remains goes to DPO."""
    seed: int


def assign_splits(ids: Iterable[tuple[str, str]], shares: SplitShares) -> dict[str, Split]:
    """Give every prompt its split.

    Prompts are walked principle by principle, inside one in the order of a seeded hash of their id, and the shares are
    spread evenly over that walk (error diffusion): totals are exact to one prompt and every principle gets its part.

    Args:
        ids: (principle id, prompt id) of every prompt, in any order; a prompt id that comes twice is one prompt.
        shares: the wanted shares.

    Returns:
        Split by prompt id, the same for the same ids and shares whatever their order.
    """
    ordered = sorted(
        {prompt_id: principle for principle, prompt_id in ids}.items(), key=lambda item: _rank(item, shares.seed)
    )
    splits: dict[str, Split] = {}
    trained = 0
    for position, (prompt_id, _) in enumerate(ordered):
        if _due(position, shares.held_out):
            splits[prompt_id] = "held_out"
        else:
            splits[prompt_id] = "sft" if _due(trained, shares.sft) else "dpo"
            trained += 1
    return splits


def _rank(item: tuple[str, str], seed: int) -> tuple[str, str]:
    prompt_id, principle = item
    return principle, hashlib.sha256(f"{seed}:{prompt_id}".encode()).hexdigest()


def _due(position: int, share: float) -> bool:
    # 1e-9: 0.2 * 5 is below 1 in floating point on some steps of the walk, which would shift the whole walk by one.
    return int((position + 1) * share + 1e-9) > int(position * share + 1e-9)
