"""Which rows go through the model together, in which process, in which order."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from accelerate import skip_first_batches
from hypothesis import given
from hypothesis import strategies as st

from jobs.train.shares import Steps, heaviest_pass, passes, step_loader
from jobs.train.stepping import Stepping

SIZES = st.lists(st.integers(1, 300), min_size=1, max_size=24)


def steps_of(sizes: list[int], batch_size: int = 4, seed: int = 0) -> Steps:
    return Steps(sizes, sizes, sum(sizes), [str(i) for i in range(len(sizes))], batch_size, seed)


@given(SIZES, st.integers(1, 400), st.integers(1, 5))
def test_the_processes_share_every_row_once_in_as_many_passes_each(sizes: list[int], capacity: int, ranks: int) -> None:
    rows = list(range(len(sizes)))

    shares = [passes(rows, sizes, capacity, rank, ranks) for rank in range(ranks)]

    assert sorted(row for share in shares for one in share for row in one) == rows
    assert len({len(share) for share in shares}) == 1, "some processes talk to each other in each pass"
    assert all(sum(sizes[row] for row in one) <= capacity or len(one) == 1 for share in shares for one in share)
    load = [sum(sizes[row] for one in share for row in one) for share in shares]
    assert max(load) - min(load) <= max(sizes), "no process has more than a row's work more than another"
    assert ranks > 1 or all(shares[0]), "alone, no pass is empty"


@given(SIZES, st.integers(1, 400), st.integers(1, 8))
def test_no_pass_of_any_step_is_heavier_than_the_probe(sizes: list[int], capacity: int, batch_size: int) -> None:
    steps = steps_of(sizes, batch_size)
    probed = heaviest_pass(steps, capacity)

    whole = sum(sizes[row] for row in probed)
    assert max(sizes) in [sizes[row] for row in probed]
    assert whole <= max(capacity, max(sizes))
    left = sorted((sizes[row] for row in range(len(sizes)) if row not in probed), reverse=True)
    assert not left or len(probed) == batch_size or whole + left[-1] > capacity, "nothing more fits beside it"


@pytest.mark.parametrize("done", [0, 1, 3])
def test_a_loader_that_skips_gives_the_rest_of_the_same_epoch(done: int) -> None:
    whole = step_loader(steps_of([5] * 14))
    whole.set_epoch(2)
    rest = skip_first_batches(step_loader(steps_of([5] * 14)), done)
    rest.batch_sampler.batch_sampler.set_epoch(2)  # as the Trainer of transformers reaches it

    assert list(rest) == list(whole)[done:]
    assert len(whole) == 4
    assert sorted(row for step in whole for row in step) == list(range(14))


def test_every_epoch_has_an_order_of_its_own_and_draws_no_global_numbers() -> None:
    import torch

    loader, before = step_loader(steps_of([5] * 40)), torch.get_rng_state()
    orders = []
    for epoch in range(3):
        loader.set_epoch(epoch)
        orders.append([row for step in loader for row in step])

    assert len({tuple(order) for order in orders}) == 3
    assert torch.equal(torch.get_rng_state(), before)


def test_a_process_without_rows_names_the_figures_the_others_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_pass(self: Any, *_: Any, weight: float) -> float:
        self.note("rewards/margins", 3.0)
        return weight

    monkeypatch.setattr(Stepping, "one_pass", one_pass)
    trainer: Any = Stepping()
    trainer.steps, trainer._shares = steps_of([5, 3]), {}

    assert trainer._empty_pass(SimpleNamespace(), [0, 1], 2.0) == 0.0
    assert trainer._shares == {"rewards/margins": 0.0}
    trainer._shares = {"rewards/margins": 0.5}
    trainer._empty_pass(SimpleNamespace(), [0, 1], 2.0)
    assert trainer._shares == {"rewards/margins": 0.5}
