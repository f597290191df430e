"""TRL's SFTTrainer with packed forward passes: TRL tokenises and masks, `Stepping` steps, the engine computes.

The loss is TRL's own: the mean negative log-likelihood of the step's scored tokens, over all its rows and processes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from trl import SFTTrainer

from jobs.train.engine.dropout import RowMasks, row_masks
from jobs.train.engine.forward import log_probs, row_sums
from jobs.train.engine.pack import Packed, Row, pack
from jobs.train.loss_mask import trained_pieces
from jobs.train.shares import passes
from jobs.train.stepping import Stepping


def row_of(prepared: Mapping[str, Any]) -> Row:
    """One row of TRL's dataset; `check_rows` has seen that its labels are the assistant's answers."""
    return Row(prepared["input_ids"], trained_pieces(prepared["labels"]))


class PackedSftTrainer(Stepping, SFTTrainer):  # type: ignore[misc]
    """SFT over packed rows; call `use` and `begin` before `train` and `evaluate`."""

    rows: Sequence[Row]
    held_out: Sequence[Row]
    principles: Sequence[str]
    masks: RowMasks
    """Of the adapters' dropout."""

    def use(self, rows: Sequence[Row], held_out: Sequence[Row], principles: Sequence[str]) -> None:
        """Tell the trainer its rows, those that are only measured, and the principle each of these is about."""
        self.rows, self.held_out, self.principles = rows, held_out, principles
        self.masks = row_masks(self.model, self.args.seed)

    def pack_rows(self, indices: Sequence[int]) -> Packed:
        """See `Hooks`."""
        return pack([self.rows[i] for i in indices], self.args.device)

    def step_total(self, indices: Sequence[int]) -> float:
        """Scored tokens."""
        return float(sum(self.rows[i].scored_tokens for i in indices))

    def micro_batch_loss(self, model: Any, packed: Packed, indices: Sequence[int], total: float) -> Any:
        """See `Hooks`."""
        self.masks.begin(self.state.global_step, [(i, len(self.rows[i].ids)) for i in indices])
        return -log_probs(model, packed).sum() / total

    def measure_held_out(self) -> dict[str, float]:
        """Mean loss over the held-out rows' scored tokens: of all, and of every principle as `loss/<principle>`."""
        sums = self._held_out_sums()
        parts: dict[str, list[int]] = defaultdict(list)
        for number, principle in enumerate(self.principles):
            parts["loss"].append(number)
            parts[f"loss/{principle}"].append(number)
        return {
            name: -sum(sums[i] for i in rows) / sum(self.held_out[i].scored_tokens for i in rows)
            for name, rows in sorted(parts.items())
        }

    def _held_out_sums(self) -> list[float]:
        """Summed log-probability of every held-out row, the same in every process."""
        sizes = [len(row.ids) for row in self.held_out]
        everyone, rank, ranks = range(len(sizes)), self.accelerator.process_index, self.accelerator.num_processes
        found = torch.zeros(len(sizes), dtype=torch.float64)
        mine = passes(everyone, sizes, self.keeper.capacity, rank, ranks) if sizes else []
        for done, indices in enumerate(mine, start=1):
            packed = pack([self.held_out[i] for i in indices or [0]], self.args.device)
            values = row_sums(log_probs(self.model, packed), packed)
            found[indices] = values[: len(indices)].double().cpu()
            self.watch.held_out_batch(done, len(mine))
        summed = found if ranks == 1 else self.accelerator.reduce(found.to(self.args.device), "sum")
        return [float(value) for value in summed.tolist()]
