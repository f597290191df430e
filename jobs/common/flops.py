"""The arithmetic of LoRA training, for minutes before a run and MFU during it. Needs no torch.

    work = Work(shape, lora_rank=16, context=causal_context([2048]))
    mfu(tokens_per_s, work, gpu.bf16_flops)

Frozen weights get no gradient of their own: a token costs its forward pass and the gradient of its activations, about
twice the forward pass. The usual 6 N (forward times three) overstates the MFU of LoRA by half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.common.model_shape import ModelShape


@dataclass(frozen=True)
class Work:
    """FLOPs for each position of a forward pass; a multiplication and an addition count as two."""

    shape: ModelShape
    lora_rank: int
    context: float
    """Positions that a position attends to, on average; see `causal_context`."""
    scored_share: float = 1.0
    """Share of the positions whose next token is scored, 0 to 1: the head works on these alone."""

    @property
    def layers(self) -> float:
        """Forward pass through the decoder layers, frozen weights and attention."""
        return 2 * self.shape.linear_parameters + self._attention

    @property
    def forward(self) -> float:
        """Forward pass without adapter: what a reference or an evaluation costs, nearly."""
        return self.layers + self._head

    @property
    def training(self) -> float:
        """Forward pass, gradient of the activations, and the adapter's own forward pass and gradients.

        Attention's four products (of queries, keys, values and probabilities) cost twice its forward pass.
        """
        return 2 * self.forward + self._attention + 6 * self.shape.lora_parameters(self.lora_rank)

    @property
    def recomputed(self) -> float:
        """What gradient checkpointing adds: the layers once more. It is no useful work, and MFU leaves it out."""
        return self.layers + 2 * self.shape.lora_parameters(self.lora_rank)

    @property
    def _attention(self) -> float:
        return 4 * self.shape.queries * self.context * self.shape.layers

    @property
    def _head(self) -> float:
        return 2 * self.shape.vocab * self.shape.hidden * self.scored_share


def causal_context(lengths: Sequence[int]) -> float:
    """Positions that a position attends to, on average over rows of these lengths.

    Args:
        lengths: positions of each row; at least one row, none empty.
    """
    return sum(length * (length + 1) / 2 for length in lengths) / sum(lengths)


def mfu(tokens_per_s: float, work: Work, peak_flops: float) -> float:
    """Model FLOPs utilization (PaLM, arXiv 2204.02311, appendix B) of training, 0 to 1.

    Args:
        tokens_per_s: positions trained in a second.
        work: of one position.
        peak_flops: what the device does at best in the dtype of the products, dense, FLOP/s.
    """
    return tokens_per_s * work.training / peak_flops
