from __future__ import annotations

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
