"""How alike two models are: logits on held-out texts and greedy answers to held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs.common.data_stage import data_folder
from jobs.common.held_out import HeldOutPrompt
from jobs.common.jsonl import read_records
from jobs.common.records import SftExample
from jobs.common.stage import RunContext
from jobs.train.answers import Sampling, answer_batches
from jobs.train.examples import encode, said

TEXTS, TOKENS = 64, 4096
"""Texts that are compared, and their tokens in all: each token keeps one row of the vocabulary in fp32."""
PROMPTS, ANSWER_TOKENS = 8, 32
"""Prompts that are answered, and the longest answer."""


@dataclass(frozen=True)
class Probe:
    """What models are asked."""

    rows: list[list[int]]
    """Token ids of whole conversations; each is read alone, so no batch shape comes between two models."""
    prompts: list[str]
    """Held-out prompts to answer."""
    tokenizer: Any

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return sum(map(len, self.rows))

    def answers(self, model: Any) -> list[str]:
        """Greedy answers to the prompts."""
        found: dict[int, Any] = {}
        for batch in answer_batches(model, self.tokenizer, self.prompts, Sampling(ANSWER_TOKENS, PROMPTS)):
            found |= batch
        return [found[i].text for i in range(len(self.prompts))]


def probe_of(context: RunContext, tokenizer: Any) -> Probe:
    """The run's held-out texts and prompts; texts that were trained where it holds none out."""
    folder = data_folder(context)
    texts = read_records(folder / "held_out_sft.jsonl", SftExample) or read_records(folder / "sft.jsonl", SftExample)
    prompts = read_records(folder / "held_out.jsonl", HeldOutPrompt)
    rows: list[list[int]] = []
    left = TOKENS
    for text in texts[:TEXTS]:
        whole = encode(tokenizer, said("user", text.prompt) + said("assistant", text.completion))
        rows += [whole[:left]] if left > 0 else []
        left -= len(whole)
    return Probe(rows, [it.prompt for it in prompts[:PROMPTS]], tokenizer)


def logits_of(model: Any, rows: Sequence[Sequence[int]]) -> list[Any]:
    """Logits of every next token: one fp32 tensor (tokens, vocabulary) on the CPU for each row."""
    import torch

    found = []
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([list(row)], device=model.device)
            found.append(model(input_ids=ids, use_cache=False).logits[0].float().cpu())
    return found


def mean_kl(ours: Sequence[Any], theirs: Sequence[Any]) -> float:
    """Mean over all tokens of KL(ours || theirs) in nats, from `logits_of` the same rows.

    In fp64: the normalisation error of fp32 is as large as what is measured.
    """
    total = 0.0
    for a, b in zip(ours, theirs, strict=True):
        log_p, log_q = a.double().log_softmax(-1), b.double().log_softmax(-1)
        total += float((log_p.exp() * (log_p - log_q)).sum())
    return total / sum(len(one) for one in ours)
