"""The state of every random generator a training step can draw from, so that a step can be done again."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy
import torch


@dataclass(frozen=True)
class Randomness:
    """Generator states of Python, numpy, torch and every CUDA device."""

    python: Any
    numpy: Any
    torch: Any
    cuda: list[Any]


def get_randomness() -> Randomness:
    """The states now."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return Randomness(random.getstate(), numpy.random.get_state(), torch.get_rng_state(), cuda)


def set_randomness(state: Randomness) -> None:
    """Put the states back."""
    random.setstate(state.python)
    numpy.random.set_state(state.numpy)
    torch.set_rng_state(state.torch)
    if state.cuda:
        torch.cuda.set_rng_state_all(state.cuda)
