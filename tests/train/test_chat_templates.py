"""Which shipped template fits which tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from jobs.common.errors import ConfigError
from jobs.common.stage import RunContext
from jobs.train import sft
from jobs.train.chat_templates import NAMES, TURNS, require_fit, template_text
from jobs.train.student import Student, end_of_turn, load_tokenizer

Students = Callable[[str], Path]

ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + "
    "eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n"
    "{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
"""As zephyr-7b-beta publishes it."""
QWEN = (
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>system\nYou are Qwen, a helpful assistant.<|im_end|>\n' }}{%- endif %}"
    "{%- for message in messages %}{%- if message.role != 'system' %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
"""ChatML with another default system message than ours."""
MISTRAL_V1 = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"
)
"""Spaces elsewhere, and no system message allowed."""


def tokenizer(students: Students, kind: str, own: str | None) -> Any:
    made = AutoTokenizer.from_pretrained(students(kind))
    made.chat_template = own
    return made


@pytest.mark.parametrize(
    ("kind", "own", "template"),
    [
        ("chatml", None, "chatml"),
        ("chatml", QWEN, "chatml"),
        ("mistral", None, "mistral"),
        ("mistral", MISTRAL_V1, "mistral"),
        ("mistral", None, "zephyr"),
        ("mistral", ZEPHYR, "zephyr"),
    ],
    ids=["base", "qwen", "base mistral", "mistral v1", "zephyr on a base", "zephyr on zephyr"],
)
def test_a_template_that_fits_is_taken(students: Students, kind: str, own: str | None, template: str) -> None:
    require_fit(tokenizer(students, kind, own), template, "tiny")


@pytest.mark.parametrize(
    ("kind", "own", "template", "right"),
    [
        ("chatml", QWEN, "zephyr", "chatml"),
        ("chatml", QWEN, "mistral", "chatml"),
        ("mistral", ZEPHYR, "mistral", "zephyr"),
        ("mistral", MISTRAL_V1, "zephyr", "mistral"),
    ],
)
def test_a_template_the_model_was_not_trained_on_is_refused_with_the_right_one(
    students: Students, kind: str, own: str, template: str, right: str
) -> None:
    with pytest.raises(ConfigError, match=rf"{template} is not what tiny .* Set student\.chat_template={right}"):
        require_fit(tokenizer(students, kind, own), template, "tiny")


def test_a_model_that_speaks_none_of_ours_says_so(students: Students) -> None:
    own = "{% for message in messages %}### {{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    with pytest.raises(ConfigError, match=r"Choose a student that speaks one of ours \(chatml, mistral, zephyr\)"):
        require_fit(tokenizer(students, "mistral", own), "zephyr", "tiny")


def test_our_own_template_in_a_saved_tokenizer_fits(students: Students) -> None:
    for kind, template in (("chatml", "chatml"), ("mistral", "mistral"), ("mistral", "zephyr")):
        require_fit(tokenizer(students, kind, template_text(template)), template, "tiny")


@pytest.mark.parametrize("ask", [False, True], ids=["whole", "ask"])
def test_zephyr_renders_what_its_model_was_trained_on(students: Students, ask: bool) -> None:
    given = tokenizer(students, "mistral", ZEPHYR)
    for turns in (TURNS[:3], [{"role": "system", "content": "Be brief."}, *TURNS[:1]]):
        ours, theirs = (
            given.apply_chat_template(turns, tokenize=False, add_generation_prompt=ask, chat_template=text)
            for text in (template_text("zephyr"), None)
        )
        assert ours == theirs


@pytest.mark.parametrize(("kind", "template"), [("chatml", "chatml"), ("mistral", "mistral"), ("mistral", "zephyr")])
def test_the_generation_marks_hold_the_answers_and_their_end_alone(
    students: Students, kind: str, template: str
) -> None:
    student = Student(students(kind), "tiny", "1", template, "again")
    ours = load_tokenizer(student)

    found = ours.apply_chat_template(TURNS, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)

    marked = [token for token, mark in zip(found["input_ids"], found["assistant_masks"], strict=True) if mark]
    end = ours.convert_ids_to_tokens(end_of_turn(ours, student))
    assert "".join(ours.decode(marked).split()) == f"Firstanswer.{end}Secondanswer.{end}"


def test_every_template_of_the_recipe_is_shipped() -> None:
    assert all("generation" in template_text(name) for name in NAMES)


def test_a_base_model_is_trained_and_answers_in_zephyrs_template(
    students: Students, tiny_run: Callable[..., RunContext]
) -> None:
    context = tiny_run(template="zephyr", student=students("mistral"))

    sft.run(context)

    assert "</s>" in (context.folder / "sft" / "loss_mask.txt").read_text()
    saved = AutoTokenizer.from_pretrained(context.folder / "sft" / "adapter")
    assert saved.chat_template == template_text("zephyr")
