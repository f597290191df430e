"""Finished chains: kept, dropped with a reason, or failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from jobs.common.records import Comparison, Dropped, Failure, PreferencePair, RedTeamPrompt, Revision
from jobs.generate.chain import Chained
from jobs.generate.filters import Drop


@dataclass
class Sorted:
    """Chains after the filters, each list in the order of the prompts."""

    kept: list[Revision] = field(default_factory=list)
    pairs: dict[str, PreferencePair] = field(default_factory=dict)
    """By id, of kept chains in `dpo` and `held_out`."""
    comparisons: list[Comparison] = field(default_factory=list)
    """Of kept and dropped chains."""
    dropped: list[Dropped] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    trimmed: int = 0
    """Texts of kept chains that were cut off and trimmed to whole sentences."""

    def counts(self, prompts: list[RedTeamPrompt]) -> dict[str, int]:
        """Row counts of the manifest."""
        splits = Counter(row.split for row in self.kept)
        return {
            "prompts": len(prompts),
            "held_out_prompts": sum(prompt.split == "held_out" for prompt in prompts),
            "revisions": len(self.kept),
            "sft": splits["sft"],
            "pairs": splits["dpo"],
            "held_out_pairs": splits["held_out"],
            "trimmed_texts": self.trimmed,
            "benign_twins": sum(row.kind == "benign_twin" for row in self.kept),
            "rewrites": sum(pair.chosen_by == "rewrite" for pair in self.pairs.values()),
            "minimal_edits": sum(pair.rejected_by == "minimal_edit" for pair in self.pairs.values()),
        }


def judged(comparisons: Sequence[Comparison], revisions: Iterable[Revision]) -> dict[str, Any]:
    """What the judge said, for the manifest; of nobody where nobody judged.

    Args:
        comparisons: everything it said.
        revisions: the kept chains.
    """
    sure = [row.preference_probability for row in revisions if row.preference_probability is not None]
    return {
        "judge": comparisons[0].model if comparisons else None,
        "comparisons": len(comparisons),
        "verdicts": dict(sorted(Counter(one.verdict for one in comparisons).items())),
        "mean_preference_probability": fmean(sure) if sure else None,
    }


def told_apart_by(text: str) -> str:
    """What is left of a revision when copies of it are looked for: its words, whatever their case and spacing."""
    return " ".join(text.split()).lower()


def sort_chains(chained: list[Chained | Failure]) -> Sorted:
    """Kept, dropped and failed chains, in the order of the prompts; the same revision is kept once."""
    found = Sorted()
    seen: set[str] = set()
    for one in chained:
        if isinstance(one, Failure):
            found.failures.append(one)
            continue
        found.comparisons += one.comparisons
        text = told_apart_by(one.revision.revision)
        drop = one.drop or (("duplicate", "another row has the same revision") if text in seen else None)
        if drop:
            found.dropped.append(_dropped(one.revision, drop))
            continue
        seen.add(text)
        found.kept.append(one.revision)
        found.trimmed += one.trimmed
        if one.pair:
            found.pairs[one.pair.id] = one.pair
    return found


def _dropped(row: Revision, why: Drop) -> Dropped:
    reason, detail = why
    return Dropped(
        id=row.id, principle_id=row.principle_id, drop_reason=reason, detail=detail, record=row.model_dump(mode="json")
    )
