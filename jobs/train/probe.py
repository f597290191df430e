"""The heaviest forward and backward pass of a run, tried before its first step: what does not fit is known at once."""

from __future__ import annotations

from typing import Any

import torch

from jobs.train.randomness import get_randomness, set_randomness
from jobs.train.shares import agree, heaviest_pass


def probe(trainer: Any) -> None:
    """Try a pass beside what Adam will hold, in smaller ones until it fits; weights and random state stay as they are.

    Args:
        trainer: a `Stepping` trainer that is ready to train.

    Raises:
        ConfigError: not even a single row fits.
    """
    model, before, failed = trainer.model, get_randomness(), True
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.train()
    while failed:
        rows = heaviest_pass(trainer.steps, trainer.keeper.capacity)
        moments = [torch.empty_like(parameter) for parameter in (*trained, *trained)]
        failed = trainer.attempt(lambda rows=rows: trainer.one_pass(model, rows, trainer.step_total(rows))) is None
        del moments
        model.zero_grad()
        set_randomness(before)
        if failed := agree(trainer.accelerator, failed)[0]:
            trainer.keeper.make_room(model)
