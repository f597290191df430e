"""Who does what in an optimizer step: the rows of every step, each process's share, and its forward passes.

epoch_order -> StepLoader (one item per step: the rows of the whole step) -> passes (this process's forward passes)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader

from jobs.train.engine.steps import epoch_order, micro_batches, steps_of


@dataclass(frozen=True)
class Steps:
    """The rows of a run, by their number in the trainer's dataset, and how they make up steps."""

    sizes: Sequence[int]
    """Positions every row (or pair) takes in a forward pass."""
    tokens: Sequence[int]
    """Real tokens of every row, for counting; a pair counts both sides with their prompt."""
    scored: int
    """Tokens of all rows that are scored."""
    ids: Sequence[str]
    """Id of every row, for people."""
    batch_size: int
    """Rows (or pairs) behind one optimizer step."""
    seed: int


@dataclass
class StepRows:
    """The batch sampler of a run: the row numbers of every step of the present epoch."""

    rows: int
    batch_size: int
    seed: int
    epoch: int = 0

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        yield from steps_of(epoch_order(self.rows, self.seed, self.epoch), self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is given next."""
        self.epoch = epoch


class StepLoader(DataLoader[list[int]]):
    """One item per optimizer step: the numbers of its rows, the same in every process.

    Draws from no global generator. On resume `skip_first_batches` makes a plain loader of the rest of the epoch; the
    trainer then reaches `set_epoch` through its sampler.
    """

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is given next."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


def step_loader(steps: Steps) -> StepLoader:
    """The loader of a run's steps."""
    rows = len(steps.sizes)
    return StepLoader(
        range(rows),  # type: ignore[arg-type]
        batch_sampler=StepRows(rows, steps.batch_size, steps.seed),
        collate_fn=list,
        generator=torch.Generator(),
    )


def passes(rows: Sequence[int], sizes: Sequence[int], capacity: int, rank: int = 0, ranks: int = 1) -> list[list[int]]:
    """This process's forward passes of one step.

    Rows are shared by size, the largest first to the process with the least; every process gets the same number of
    passes, because some of them talk to each other in each one. A pass without rows stands for one that counts nothing.

    Args:
        rows: row numbers of the whole step.
        sizes: positions every row of the run takes.
        capacity: most positions in one pass.
        rank: this process.
        ranks: processes in all.
    """
    shares: list[list[int]] = [[] for _ in range(ranks)]
    load = [0] * ranks
    for row in sorted(rows, key=lambda it: (-sizes[it], it)) if ranks > 1 else rows:
        least = load.index(min(load))
        shares[least].append(row)
        load[least] += sizes[row]
    bins = [micro_batches([sizes[row] for row in share], capacity) for share in shares]
    mine = [[shares[rank][at] for at in one] for one in bins[rank]]
    empty: list[list[int]] = [[] for _ in range(max(map(len, bins)) - len(mine))]
    return [*empty, *mine]


def heaviest_pass(steps: Steps, capacity: int) -> list[int]:
    """The rows of a pass as heavy as any of the run can be: the longest that fit together."""
    chosen: list[int] = []
    load = 0
    for row in sorted(range(len(steps.sizes)), key=lambda it: (-steps.sizes[it], it)):
        if not chosen or (load + steps.sizes[row] <= capacity and len(chosen) < steps.batch_size):
            chosen.append(row)
            load += steps.sizes[row]
    return chosen


def agree(accelerator: Any, *flags: bool) -> list[bool]:
    """Each flag as true as in any process; every process must ask at the same time."""
    if accelerator.num_processes == 1:
        return list(flags)
    found = accelerator.reduce(torch.tensor(flags, dtype=torch.float32, device=accelerator.device), "sum")
    return [count > 0 for count in found.tolist()]


def sums(accelerator: Any, shares: Mapping[str, Any]) -> dict[str, float]:
    """Each figure's shares added up over the processes, which must have the same names and ask at the same time."""
    values = [torch.as_tensor(share, dtype=torch.float32).to(accelerator.device) for share in shares.values()]
    whole = accelerator.reduce(torch.stack(values), "sum").tolist() if values else []
    return dict(zip(shares, whole, strict=True))
