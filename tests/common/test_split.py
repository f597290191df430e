from __future__ import annotations

import hashlib
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from jobs.common.split import SplitShares, assign_splits

ids = st.dictionaries(st.text("abcdef0123456789", min_size=4), st.sampled_from(["p1", "p2", "p3"]), max_size=60).map(
    lambda found: [(principle, prompt_id) for prompt_id, principle in found.items()]
)
shares = st.builds(SplitShares, held_out=st.floats(0, 1), sft=st.floats(0, 1), seed=st.integers(0, 9))


@given(ids, shares, st.randoms())
def test_the_order_of_the_prompts_does_not_matter(prompts: list[tuple[str, str]], share: SplitShares, random) -> None:
    shuffled = list(prompts)
    random.shuffle(shuffled)
    assert assign_splits(prompts, share) == assign_splits(shuffled, share)


@given(ids, shares)
def test_every_prompt_has_one_split_and_totals_are_exact_to_one(
    prompts: list[tuple[str, str]], share: SplitShares
) -> None:
    splits = assign_splits(prompts, share)
    assert splits.keys() == {prompt_id for _, prompt_id in prompts}
    counts = Counter(splits.values())
    assert abs(counts["held_out"] - len(prompts) * share.held_out) <= 1
    trained = len(prompts) - counts["held_out"]
    assert abs(counts["sft"] - trained * share.sft) <= 1


def test_every_principle_gets_its_part_of_every_split() -> None:
    prompts = [(f"p{principle:02}", f"p{principle:02}-{number}") for principle in range(22) for number in range(5)]
    splits = assign_splits(prompts, SplitShares(0.2, 0.5, 0))
    assert Counter(splits.values()) == {"held_out": 22, "sft": 44, "dpo": 44}
    for principle in range(22):
        mine = Counter(splits[f"p{principle:02}-{number}"] for number in range(5))
        assert mine == {"held_out": 1, "sft": 2, "dpo": 2}


def test_another_seed_gives_another_split() -> None:
    prompts = [("p", str(number)) for number in range(100)]
    one, two = (assign_splits(prompts, SplitShares(0.2, 0.5, seed)) for seed in (0, 1))
    assert one != two


def walked_without_clusters(prompts: list[tuple[str, str]], share: SplitShares) -> dict[str, str]:
    """The walk of the first version, which knew no clusters: a run of then and one of now share their splits."""

    def due(position: int, part: float) -> bool:
        return int((position + 1) * part + 1e-9) > int(position * part + 1e-9)

    ranked = sorted(prompts, key=lambda it: (it[0], hashlib.sha256(f"{share.seed}:{it[1]}".encode()).hexdigest()))
    splits: dict[str, str] = {}
    trained = 0
    for position, (_, prompt_id) in enumerate(ranked):
        if due(position, share.held_out):
            splits[prompt_id] = "held_out"
            continue
        splits[prompt_id] = "sft" if due(trained, share.sft) else "dpo"
        trained += 1
    return splits


def clusters_of(prompts: list[tuple[str, str]], numbers: list[int]) -> dict[str, str]:
    """Some prompts in a few clusters, the others alone."""
    pairs = zip(prompts, numbers, strict=False)
    return {prompt_id: f"cluster-{number}" for (_, prompt_id), number in pairs if number}


numbers = st.lists(st.integers(0, 6), max_size=60)


@given(ids, shares)
def test_without_clusters_the_split_is_that_of_runs_made_before_there_were_any(
    prompts: list[tuple[str, str]], share: SplitShares
) -> None:
    assert assign_splits(prompts, share) == walked_without_clusters(prompts, share)
    alone = dict.fromkeys((prompt_id for _, prompt_id in prompts), "")
    assert assign_splits(prompts, share, cluster_of=alone) == walked_without_clusters(prompts, share)


@given(ids, shares, numbers, st.sets(st.sampled_from(["p1", "p2", "p9"])))
def test_a_cluster_is_never_divided_whatever_its_principles(
    prompts: list[tuple[str, str]], share: SplitShares, numbers: list[int], closed: set[str]
) -> None:
    cluster_of = clusters_of(prompts, numbers)
    splits = assign_splits(prompts, share, cluster_of=cluster_of, held_out_principles=closed)
    seen: dict[str, set[str]] = {}
    for prompt_id, cluster in cluster_of.items():
        seen.setdefault(cluster, set()).add(splits[prompt_id])
    assert all(len(found) == 1 for found in seen.values())
    assert splits.keys() == {prompt_id for _, prompt_id in prompts}


@given(ids, shares, numbers)
def test_shares_are_exact_to_within_the_largest_cluster(
    prompts: list[tuple[str, str]], share: SplitShares, numbers: list[int]
) -> None:
    cluster_of = clusters_of(prompts, numbers)
    largest = max(Counter(cluster_of.values()).values(), default=1)
    counts = Counter(assign_splits(prompts, share, cluster_of=cluster_of).values())
    assert abs(counts["held_out"] - len(prompts) * share.held_out) <= largest / 2 + 1
    trained = len(prompts) - counts["held_out"]
    assert abs(counts["sft"] - trained * share.sft) <= largest / 2 + 1


@given(ids, shares, numbers, st.randoms())
def test_the_order_of_clustered_prompts_does_not_matter(
    prompts: list[tuple[str, str]], share: SplitShares, numbers: list[int], random
) -> None:
    cluster_of = clusters_of(prompts, numbers)
    shuffled = list(prompts)
    random.shuffle(shuffled)
    one, two = (assign_splits(each, share, cluster_of=cluster_of) for each in (prompts, shuffled))
    assert one == two


@given(ids, shares, numbers)
def test_every_prompt_of_a_held_out_principle_and_of_its_clusters_is_held_out(
    prompts: list[tuple[str, str]], share: SplitShares, numbers: list[int]
) -> None:
    cluster_of = clusters_of(prompts, numbers)
    splits = assign_splits(prompts, share, cluster_of=cluster_of, held_out_principles=["p2"])
    closed = {prompt_id for principle, prompt_id in prompts if principle == "p2"}
    closed |= {it for it, cluster in cluster_of.items() if cluster in {cluster_of.get(one) for one in closed}}
    assert {splits[prompt_id] for prompt_id in closed} <= {"held_out"}
    rest = [prompt for prompt in prompts if prompt[1] not in closed]
    assert {it: splits[it] for _, it in rest} == assign_splits(rest, share, cluster_of=cluster_of)
