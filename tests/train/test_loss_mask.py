"""Which tokens are trained: every answer with the token that ends it, in each template, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from jobs.common.errors import DataError
from jobs.common.fetched import FetchedFile
from jobs.common.jsonl import sha256_file
from jobs.common.stage import RunContext
from jobs.train import adapters, loss_mask, sft
from jobs.train.device import libraries
from tests.train.test_sft_steps import built_trainer, plain_trl

END, BOS, NEWLINE, WORD = 2, 1, 3, 9
TEXTS = {END: "<end>", BOS: "<s>", NEWLINE: "\n"}
GOOD = loss_mask.MaskedRow(
    "r",
    input_ids=[BOS, 7, 8, 20, 21, END, NEWLINE],
    labels=[-100, -100, -100, 20, 21, END, NEWLINE],
    asked=[[BOS, 7, 8]],
    cut=False,
)
TOKENS = loss_mask.TurnTokens(end_of_turn=END, bos=BOS)
TOKENIZER = SimpleNamespace(decode=lambda ids: "".join(TEXTS.get(token, f"w{token} ") for token in ids))


def test_a_good_row_passes_and_is_shown_with_its_trained_part() -> None:
    loss_mask.check_row(GOOD, TOKENS, TOKENIZER)

    shown = loss_mask.show_mask(GOOD, TOKENIZER)
    assert shown == "Row r: 4 of 7 tokens are trained, between [[ and ]]:\n<s>w7 w8 [[w20 w21 <end>\n]]\n"


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"labels": [-100] * 7}, "no token is trained"),
        ({"labels": [-100, -100, 8, 20, 21, END, NEWLINE]}, "what comes before that answer is 3 tokens"),
        ({"labels": [BOS, 7, 8, 20, 21, END, NEWLINE]}, "what comes before that answer is 3 tokens"),
        ({"labels": [-100, -100, -100, -100, 21, END, NEWLINE]}, "what comes before that answer is 3 tokens"),
        ({"labels": [-100, -100, -100, 20, -100, END, NEWLINE]}, "2 pieces are trained, expected 1"),
        ({"labels": [-100, -100, -100, 20, 21, -100, -100]}, "trained 0 times"),
        ({"labels": [-100, -100, -100, 20, 21, -100, -100], "cut": True}, "trained 0 times"),
        ({"labels": [-100, -100, -100, 20, 22, END, NEWLINE]}, "a label is another token"),
        ({"asked": [[BOS, 7, 8], [BOS, 7, 8, 20, 21, END, NEWLINE]]}, "1 pieces are trained, expected 2"),
        ({"asked": [[BOS, 7]]}, "not what the model sees"),
        ({"input_ids": [BOS, 7, 8, 20, 21], "labels": [-100, -100, -100, 20, 21]}, "trained 0 times"),
        ({"input_ids": [BOS, 7, 8, END, 21, END], "labels": [-100, -100, -100, END, 21, END]}, "trained 2 times"),
        (
            {"input_ids": [BOS, 7, 8, 20, END, WORD], "labels": [-100, -100, -100, 20, END, WORD]},
            "text follows the end",
        ),
        (
            {
                "input_ids": [BOS, BOS, 8, 20, END],
                "labels": [-100, -100, -100, 20, END],
                "asked": [[BOS, BOS, 8]],
            },
            "2 BOS tokens",
        ),
        (
            {"input_ids": [6, 7, 8, 20, END], "labels": [-100, -100, -100, 20, END], "asked": [[6, 7, 8]]},
            "0 BOS tokens",
        ),
    ],
)
def test_a_broken_mask_stops(broken: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        loss_mask.check_row(replace(GOOD, **broken), TOKENS, TOKENIZER)


TWO = loss_mask.MaskedRow(
    "two",
    input_ids=[BOS, 7, 20, END, NEWLINE, 8, 21, 22, END, NEWLINE],
    labels=[-100, -100, 20, END, -100, -100, 21, 22, END, -100],
    asked=[[BOS, 7], [BOS, 7, 20, END, NEWLINE, 8]],
    cut=False,
)


def test_a_row_of_two_answers_passes_and_is_shown_with_both() -> None:
    loss_mask.check_row(TWO, TOKENS, TOKENIZER)

    shown = loss_mask.show_mask(TWO, TOKENIZER)
    assert shown.splitlines()[0] == "Row two: 5 of 10 tokens are trained, between [[ and ]]:"
    assert shown.endswith("\n<s>w7 [[w20 <end>]]\nw8 [[w21 w22 <end>]]\n\n")


@pytest.mark.parametrize(
    ("at", "message"),
    [
        ({5: 8}, "the mask starts at token 5, but what comes before that answer is 6 tokens"),
        ({4: NEWLINE, 5: 8}, "1 pieces are trained, expected 2"),
        ({1: 7}, "the mask starts at token 1, but what comes before that answer is 2 tokens"),
        ({2: -100, 3: -100}, "1 pieces are trained, expected 2"),
        ({6: -100, 7: -100, 8: -100}, "1 pieces are trained, expected 2"),
        ({3: -100}, "trained 0 times"),
        ({8: -100}, "trained 0 times"),
    ],
    ids=["header", "whole user turn", "first prompt", "no first answer", "no last answer", "first end", "last end"],
)
def test_a_mask_of_two_answers_that_is_wrong_anywhere_stops(at: dict[int, int], message: str) -> None:
    labels = [at.get(i, label) for i, label in enumerate(TWO.labels)]

    with pytest.raises(DataError, match=f"Row two: .*{message}"):
        loss_mask.check_row(replace(TWO, labels=labels), TOKENS, TOKENIZER)


def test_a_cut_row_may_end_without_its_end_of_turn() -> None:
    cut = replace(GOOD, input_ids=GOOD.input_ids[:5], labels=GOOD.labels[:5], cut=True)

    loss_mask.check_row(cut, TOKENS, TOKENIZER)


def test_a_template_without_bos_is_not_asked_for_one() -> None:
    loss_mask.check_row(GOOD, replace(TOKENS, bos=None), TOKENIZER)


@pytest.mark.parametrize("mask", [[0, 0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 1, 1, 1]], ids=["newline outside", "inside"])
def test_markers_may_differ_from_the_mask_by_white_space(mask: list[int]) -> None:
    loss_mask.check_generation_markers(GOOD, mask, TOKENIZER)


@pytest.mark.parametrize("mask", [[0, 0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1, 0]], ids=["end left out", "prompt inside"])
def test_markers_that_disagree_stop(mask: list[int]) -> None:
    with pytest.raises(DataError, match="generation markers"):
        loss_mask.check_generation_markers(GOOD, mask, TOKENIZER)


Runs = Callable[..., RunContext]

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Why share water?"},
    {"role": "assistant", "content": "We live together."},
    {"role": "user", "content": "And with a thief?"},
    {"role": "assistant", "content": "Ask first.\n\nThen share."},
    {"role": "user", "content": "Always?"},
    {"role": "assistant", "content": "Nearly."},
]
TRAINED = {
    "chatml": "{}<|im_end|>",
    "zephyr": "{}</s>",
    "mistral": " {}</s>",
}
"""What is trained of an answer."""


@pytest.fixture
def mixed_run(
    tiny_run: Runs, tmp_path: Path, students: Callable[[str], Path]
) -> Callable[[str, list[dict[str, str]]], RunContext]:
    """A run of eight rows of its own, with one answer each, and one conversation mixed in."""

    def make(template: str, messages: list[dict[str, str]]) -> RunContext:
        run = f"of-{len(messages)}"
        path = tmp_path / f"{run}.jsonl"
        path.write_text(json.dumps({"messages": messages}) + "\n")
        mixed = {f"{path}@main/train": FetchedFile(path=str(path), sha256=sha256_file(path))}
        settings = {"mix_in": [{"dataset": str(path), "weight": 1 / 8}]}
        student = students("mistral" if template == "zephyr" else template)
        return tiny_run(template, student, mixed=mixed, sft=settings, run=run)

    return make


def pieces(trainer: Any, number: int) -> list[str]:
    row = trainer.rows[number]
    return [trainer.processing_class.decode(row.ids[it.start : it.stop]) for it in row.scored]


@pytest.mark.parametrize("template", ["chatml", "zephyr", "mistral"])
def test_every_answer_of_a_mixed_in_conversation_is_trained_and_nothing_between(
    mixed_run: Runs, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    trainer = built_trainer(mixed_run(template, CONVERSATION), monkeypatch)

    answers = [turn["content"] for turn in CONVERSATION if turn["role"] == "assistant"]
    assert pieces(trainer, 8) == [TRAINED[template].format(answer) for answer in answers]
    whole = trainer.processing_class.apply_chat_template(CONVERSATION, tokenize=False)
    assert trainer.processing_class.decode(trainer.rows[8].ids) == whole
    assert trainer.steps.scored == sum(row.scored_tokens for row in trainer.rows)


@pytest.mark.parametrize("template", ["chatml", "zephyr", "mistral"])
def test_a_conversation_too_long_is_trained_up_to_its_last_answer_that_fits_whole(
    mixed_run: Runs, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    long = {"role": "assistant", "content": "Nearly always. " * 100}
    trainer = built_trainer(mixed_run(template, [*CONVERSATION[:6], long]), monkeypatch)

    assert len(pieces(trainer, 8)) == 2
    whole = trainer.processing_class.apply_chat_template(CONVERSATION[:5], tokenize=False)
    assert trainer.processing_class.decode(trainer.rows[8].ids) == whole


@pytest.mark.parametrize("template", ["chatml", "zephyr", "mistral"])
def test_rows_of_one_answer_are_masked_as_without_a_conversation_beside_them(
    mixed_run: Runs, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    beside = built_trainer(mixed_run(template, CONVERSATION), monkeypatch)
    without = built_trainer(mixed_run(template, CONVERSATION[:3]), monkeypatch)

    assert "assistant_masks" not in without.train_dataset.column_names
    assert beside.rows[:8] == without.rows[:8]
    end = "\n" if template != "mistral" else ""
    assert pieces(without, 8) == [TRAINED[template].format("We live together.") + end]


def test_a_step_with_a_conversation_in_it_has_the_loss_and_gradients_of_plain_cross_entropy_over_its_answers(
    mixed_run: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = mixed_run("chatml", CONVERSATION)
    trainer = built_trainer(context, monkeypatch)
    for name, value in adapters.weights(trainer.model).items():
        if "lora_B" in name:  # zero at the start, which would hide every error of lora_A
            torch.nn.init.normal_(value, std=0.05, generator=torch.Generator().manual_seed(1))
    rows = [{"input_ids": list(row.ids), "labels": labels(row.ids, row.scored)} for row in trainer.rows]

    loss = trainer.training_step(trainer.model, list(range(9)))

    with libraries("sft", context.run):
        expected, gradients = plain_trl(context, rows, adapters.snapshot(trainer.model))
    assert float(loss) == pytest.approx(expected, abs=1e-6)
    for name, value in adapters.weights(trainer.model).items():
        assert torch.allclose(value.grad, gradients[name], atol=1e-6), name
        assert gradients[name].abs().max() > 1e-4, "the comparison is of something"


def labels(ids: Sequence[int], scored: Sequence[range]) -> list[int]:
    return [token if any(at in piece for piece in scored) else -100 for at, token in enumerate(ids)]


def test_a_trained_conversation_is_shown_beside_the_first_row_of_one_answer(mixed_run: Runs) -> None:
    context = mixed_run("chatml", CONVERSATION)

    sft.run(context)

    first, second = (context.folder / "sft" / "loss_mask.txt").read_text().split("Row mix_in:")
    assert first.count("<|im_end|>\n]]") == 1
    assert second.count("<|im_end|>]]") == 3
    assert "<|im_start|>user\nAlways?<|im_end|>\n<|im_start|>assistant\n[[Nearly.<|im_end|>]]\n" in second
