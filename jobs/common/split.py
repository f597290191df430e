"""Which prompts are held out, which train SFT, which train DPO: decided once, before any reply is paid for."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
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


class _Share:
    """Takes its share of a walk (error diffusion), as nearly after every unit as the units allow."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.seen = 0
        self.taken = 0

    def takes(self, prompts: int) -> bool:
        """Whether the next unit of the walk, of so many prompts, belongs to this share."""
        self.seen += prompts
        # 1e-9: 0.2 * 5 is below 1 in floating point on some steps of the walk, which would shift the whole walk by one.
        missing = int(self.seen * self.share + 1e-9) - self.taken
        if 2 * missing < prompts:
            return False
        self.taken += prompts
        return True


def assign_splits(
    ids: Iterable[tuple[str, str]],
    shares: SplitShares,
    *,
    cluster_of: Mapping[str, str] = {},
    held_out_principles: Collection[str] = (),
) -> dict[str, Split]:
    """Give every prompt its split; a near-duplicate cluster is never divided.

    Clusters (a prompt without near duplicates is one of its own) are walked principle by principle, inside one in the
    order of a seeded hash of their first prompt's id, and the shares are spread evenly over that walk. Totals are exact
    to one prompt without clusters, else to half the largest cluster, and every principle gets its part.

    Args:
        ids: (principle id, prompt id) of every prompt, in any order; a prompt id that comes twice is one prompt.
        shares: the wanted shares.
        cluster_of: cluster by prompt id; a prompt that is not in it, or has an empty one, is alone.
        held_out_principles: principles whose prompts, with their clusters, are all held out; the shares are shares of
            the rest.

    Returns:
        Split by prompt id, the same for the same ids and shares whatever their order.
    """
    ordered = sorted(
        {prompt_id: principle for principle, prompt_id in ids}.items(), key=lambda item: _rank(item, shares.seed)
    )
    clusters: dict[str, list[str]] = {}  # in the order of their first prompts
    closed: set[str] = set()
    for prompt_id, principle in ordered:
        cluster = cluster_of.get(prompt_id) or prompt_id
        clusters.setdefault(cluster, []).append(prompt_id)
        if principle in held_out_principles:
            closed.add(cluster)
    held_out, sft = _Share(shares.held_out), _Share(shares.sft)
    splits: dict[str, Split] = {}
    for cluster, members in clusters.items():
        split: Split = "held_out"
        if cluster not in closed and not held_out.takes(len(members)):
            split = "sft" if sft.takes(len(members)) else "dpo"
        splits |= dict.fromkeys(members, split)
    return splits


def _rank(item: tuple[str, str], seed: int) -> tuple[str, str]:
    prompt_id, principle = item
    return principle, hashlib.sha256(f"{seed}:{prompt_id}".encode()).hexdigest()
