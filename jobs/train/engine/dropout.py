"""Dropout before LoRA adapters whose masks belong to the rows of a step, not to the pass that they go through in.

torch draws one mask for a whole forward pass, so other passes over the same rows (another GPU, less memory, more
processes) would train with other masks. Here every mask is drawn from run seed, step, row and layer alone: how rows are
packed changes the result by rounding, with dropout as without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor


@dataclass
class RowMasks:
    """The rows of the pass that runs now, as every layer's dropout sees them."""

    seed: int
    step: int = 0
    rows: Sequence[tuple[int, int]] = ()
    """(number of the row in the run, its positions), in the order of the pass."""

    def begin(self, step: int, rows: Sequence[tuple[int, int]]) -> None:
        """A pass over these rows begins, in the step after `step`; its backward pass may ask for the masks again."""
        self.step, self.rows = step, rows


class RowDropout(torch.nn.Dropout):
    """Dropout (Srivastava et al. 2014) of one layer, drawn row by row."""

    def __init__(self, share: float, layer: int, masks: RowMasks) -> None:
        """Drop a share of the values that a layer's adapter reads.

        Args:
            share: of the values, 0 to 1.
            layer: number of the layer in the model.
            masks: of the model.
        """
        super().__init__(share)
        self.layer, self.masks = layer, masks

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, input: Tensor) -> Tensor:
        """Shapes: (1, T, in), the rows end to end; what stands after the last row is padding."""
        if not self.training or self.p == 0.0:
            return input
        dropped, begin = torch.zeros_like(input, dtype=torch.bool), 0
        for row, length in self.masks.rows:
            drawn = torch.rand(
                length, input.shape[-1], generator=self._generator(row, input.device), device=input.device
            )
            dropped[0, begin : begin + length] = drawn < self.p
            begin += length
        kept = input.masked_fill(dropped, 0.0)  # its backward pass needs a byte for each value
        return kept / (1 - self.p) if self.p < 1 else kept

    def _generator(self, row: int, device: Any) -> torch.Generator:
        name = f"{self.masks.seed}:{self.masks.step}:{row}:{self.layer}"
        return torch.Generator(device).manual_seed(int.from_bytes(sha256(name.encode()).digest()[:8]) >> 1)


def row_masks(model: Any, seed: int) -> RowMasks:
    """Give every adapter of a model that has dropout masks by row; the trainer says which rows a pass holds."""
    from peft.tuners.lora import LoraLayer

    masks = RowMasks(seed)
    for number, layer in enumerate(one for one in model.modules() if isinstance(one, LoraLayer)):
        for name, dropout in layer.lora_dropout.items():
            if isinstance(dropout, torch.nn.Dropout):
                layer.lora_dropout[name] = RowDropout(dropout.p, number, masks)
    return masks
