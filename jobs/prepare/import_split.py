"""Split imported prompts by near-duplicate clusters; what the source calls a test set is held out."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.common.ledger import overlapping
from jobs.common.records import RedTeamPrompt, Split
from jobs.common.settings import Recipe
from jobs.common.split import SplitShares, assign_splits
from jobs.prepare.import_found import VERSION, Found, FoundPrompt, Use


def split_prompts(found: Found, recipe: Recipe) -> list[RedTeamPrompt]:
    """Give every prompt its cluster and split; the result is the ledger of the run.

    A cluster that holds a prompt of a test split is held out, and then nothing else is but whole principles that the
    recipe names; without test splits the recipe's share is. A cluster whose rows are all for one stage goes to it.
    """
    prompts = list(found.prompts.values())
    cluster_of = _clusters(prompts)
    tests = {cluster_of[prompt.id] for prompt in prompts if prompt.held_out}
    uses: dict[str, set[Use]] = {}
    for prompt in prompts:
        uses.setdefault(cluster_of[prompt.id], set()).update(prompt.uses)
    generate = recipe.generate
    splits = assign_splits(
        ((prompt.principle_id, prompt.id) for prompt in prompts if cluster_of[prompt.id] not in tests),
        SplitShares(0.0 if tests else generate.held_out_fraction, generate.sft_fraction, recipe.seed),
        cluster_of=cluster_of,
        held_out_principles=generate.held_out_principles,
    )

    def split(prompt: FoundPrompt) -> Split:
        given = splits.get(prompt.id, "held_out")
        usable = uses[cluster_of[prompt.id]]
        return given if given == "held_out" or given in usable else next(iter(usable))

    return [
        RedTeamPrompt(
            id=prompt.id,
            principle_id=prompt.principle_id,
            prompt=prompt.text,
            split=split(prompt),
            model=VERSION,
            prompt_version=VERSION,
            sample_index=0,
            cluster=cluster_of[prompt.id],
        )
        for prompt in prompts
    ]


def _clusters(prompts: Sequence[FoundPrompt]) -> dict[str, str]:
    """Cluster by prompt id: the id of its first prompt."""
    from jobs.measure.findings import Near
    from jobs.measure.near import clusters, near_pairs

    texts = [prompt.text for prompt in prompts]
    links = near_pairs(texts)
    links += [Near(first, second, "exact", 1.0) for first, second in overlapping(texts)]
    numbers = clusters(len(texts), links)
    first: dict[int, str] = {}
    return {prompt.id: first.setdefault(number, prompt.id) for prompt, number in zip(prompts, numbers, strict=True)}
