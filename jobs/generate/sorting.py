"""Finished chains through the filters: kept, dropped with a reason, or failed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from jobs.common.records import Dropped, Failure, RedTeamPrompt, Revision
from jobs.generate.chain import Chained
from jobs.generate.filters import revision_fault


@dataclass(frozen=True)
class Sorted:
    """Chains after the filters."""

    kept: list[Revision]
    dropped: list[Dropped]
    failures: list[Failure]
    trimmed: int
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
        }


def sort_chains(chained: list[Chained | Failure]) -> Sorted:
    """Kept, dropped and failed chains, in the order of the prompts; the same revision is kept once."""
    found, trimmed = Sorted([], [], [], 0), 0
    seen: set[str] = set()
    for one in chained:
        if isinstance(one, Failure):
            found.failures.append(one)
            continue
        row = one.revision
        text = " ".join(row.revision.split()).lower()
        fault = revision_fault(row.initial_response, row.critique, row.revision)
        if not fault and text in seen:
            fault = ("duplicate", "another row has the same revision")
        if fault:
            reason, detail = fault
            found.dropped.append(
                Dropped(
                    id=row.id,
                    principle_id=row.principle_id,
                    drop_reason=reason,
                    detail=detail,
                    record=row.model_dump(mode="json"),
                )
            )
            continue
        seen.add(text)
        found.kept.append(row)
        trimmed += one.trimmed
    return replace(found, trimmed=trimmed)
