"""`cai respond --system base`: the student's own initial responses, and what a killed job goes on from."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from jobs.common.errors import ConfigError, DataError, StoppedError
from jobs.common.held_out import Response
from jobs.common.jsonl import read_json, read_records
from jobs.common.stage import RunContext
from jobs.train import answers, initial
from jobs.train.answered import Answered
from jobs.train.device import libraries
from jobs.train.draws import own_draws
from tests.train.builders import SENTENCES, red_team, small_generate

Runs = Callable[..., RunContext]

REPORT = """
import sys
from jobs.__main__ import main
code = main(sys.argv[1:])
print(code, *[name for name in ("torch", "transformers", "openai") if name in sys.modules])
"""
DIES_AFTER_4 = """
import os, signal, sys
from jobs.__main__ import main
from jobs.train.answered import Answered
real = Answered.append
def append(answered, batch):
    real(answered, batch)
    if len(answered.by_id) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
Answered.append = append
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def student_run(tiny_run: Runs) -> Callable[..., RunContext]:
    """A run whose prompts are frozen and whose generate has not finished."""

    def make(prompts: int = 3, **changes: Any) -> RunContext:
        texts = [f"{SENTENCES[i % len(SENTENCES)] * (1 + i % 3)} ({i})" for i in range(prompts)]
        given = {"initial": {"endpoint": "file"}, "generate": {"response_tokens": 6}} | changes
        context = tiny_run(files=small_generate() | {"prompts": [red_team(text) for text in texts]}, **given)
        (context.folder / "generate" / "manifest.json").unlink()
        return context

    return make


def responses_of(context: RunContext) -> list[Response]:
    return read_records(context.folder / "initial" / "responses.jsonl", Response)


def copy_run(context: RunContext, run: str) -> RunContext:
    """The same parents under another run's name."""
    for stage in ("fetch", "generate"):
        shutil.copytree(context.folder / stage, context.runs / run / stage)
    return replace(context, run=run)


def command_line(context: RunContext) -> list[str]:
    recipe = context.runs / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(context.recipe.model_dump(mode="json")))
    return ["respond", "--system", "base", "--recipe", str(recipe), "--run", context.run, "--runs", str(context.runs)]


def test_every_red_team_prompt_is_answered_in_its_order_before_generate_has_finished(student_run: Runs) -> None:
    context = student_run(prompts=10)

    initial.run(context)

    responses = responses_of(context)
    assert [one.prompt.split()[-1] for one in responses] == [f"({i})" for i in range(10)]
    assert {one.system for one in responses} == {"base"}
    assert {one.model for one in responses} == {"tiny-chatml"}
    assert all(0 < one.response_tokens <= 6 for one in responses)
    manifest = read_json(context.folder / "initial" / "manifest.json")
    assert manifest["counts"] == {"prompts": 10, "truncated": sum(one.truncated for one in responses)}
    assert manifest["counts"]["truncated"] > 0, "a random model seldom ends by itself"
    assert not (context.folder / "initial" / "answered.jsonl").exists()


def test_another_seed_draws_other_answers(student_run: Runs) -> None:
    context = student_run()
    other = copy_run(replace(context, recipe=context.recipe.model_copy(update={"seed": 1})), "other")

    initial.run(context)
    initial.run(other)

    assert [one.id for one in responses_of(context)] == [one.id for one in responses_of(other)]
    assert [one.response for one in responses_of(context)] != [one.response for one in responses_of(other)]


def test_a_job_killed_in_the_middle_goes_on_to_the_undisturbed_answers(student_run: Runs) -> None:
    context = student_run(prompts=12, respond={"batch_size": 2})
    undisturbed = copy_run(context, "undisturbed")
    done = subprocess.run([sys.executable, "-c", DIES_AFTER_4, *command_line(context)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (context.folder / "initial" / "answered.jsonl").read_bytes().count(b"\n") == 4
    assert not (context.folder / "initial" / "responses.jsonl").exists()

    initial.run(context)
    initial.run(undisturbed)

    assert responses_of(context) == responses_of(undisturbed)
    resumed = read_json(context.folder / "initial" / "manifest.json")["measures"]["resumed_after_answers"]
    assert resumed == 4


def test_sigterm_ends_after_the_batch_in_hand_and_a_smaller_batch_goes_on(
    student_run: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = student_run(prompts=9)
    undisturbed = copy_run(context, "undisturbed")
    smaller = context.recipe.respond.model_copy(update={"batch_size": 3})
    with monkeypatch.context() as patch:
        patch.setattr(answers, "_generate", then_sigterm(answers._generate))
        with pytest.raises(StoppedError, match=r"4 of 9 answers are kept\. Run the same command"):
            initial.run(context)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    initial.run(replace(context, recipe=context.recipe.model_copy(update={"respond": smaller})))
    initial.run(undisturbed)

    assert responses_of(context) == responses_of(undisturbed)


def then_sigterm(generate: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return generate(*args)

    return call


def test_when_every_answer_is_kept_no_weights_are_loaded_again(
    student_run: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = student_run()
    with monkeypatch.context() as patch:
        patch.setattr(initial, "write_records", raise_stopped)
        with pytest.raises(StoppedError):
            initial.run(context)
    monkeypatch.setattr(initial, "load_model", raise_stopped)

    initial.run(context)

    assert len(responses_of(context)) == 3


def raise_stopped(*_: object) -> None:
    raise StoppedError("the power went")


def test_a_line_cut_off_by_a_power_cut_is_answered_again(tmp_path: Path) -> None:
    path = tmp_path / "answered.jsonl"
    first, second = (an_answer(name) for name in "ab")
    Answered(path).append([first, second])
    path.write_bytes(path.read_bytes()[:-5])

    answered = Answered(path)
    assert answered.by_id == {"a": first}
    answered.append([second])

    assert Answered(path).by_id == {"a": first, "b": second}


def test_a_damaged_whole_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "answered.jsonl"
    path.write_text("{}\n")
    with pytest.raises(DataError, match=r"answered.jsonl:1: not a Response"):
        Answered(path)


def an_answer(name: str) -> Response:
    return Response(
        id=name,
        principle_id="p",
        prompt="Why?\r",
        system="base",
        response="Because…\n",
        response_tokens=3,
        truncated=False,
        model="m",
        prompt_version="1",
    )


def test_a_second_run_says_already_finished_and_other_sampling_is_refused(
    student_run: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    context = student_run()
    initial.run(context)
    changed = context.recipe.initial.model_copy(update={"temperature": 0.1})

    initial.run(context)

    assert "initial: already finished" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"initial.temperature was 0.7, now 0.1.*cai respond --system base .*--redo"):
        initial.run(replace(context, recipe=context.recipe.model_copy(update={"initial": changed})))


def test_without_prompts_it_names_the_command_that_freezes_them(student_run: Runs) -> None:
    context = student_run()
    (context.folder / "generate" / "prompts.jsonl").unlink()
    with pytest.raises(
        ConfigError, match=r"prompts.jsonl does not exist yet. Run: cai generate --run r --until prompts"
    ):
        initial.run(context)


@pytest.mark.parametrize("endpoint", ["embedded", "teacher", "http://student.example/v1"])
def test_recipes_that_do_not_ask_for_it_are_told_in_one_line(student_run: Runs, endpoint: str) -> None:
    context = student_run(initial={"endpoint": endpoint})
    done = subprocess.run(
        [sys.executable, "-c", REPORT, *command_line(context)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "0\n"
    assert done.stderr == f"respond --system base: not needed, since initial.endpoint is {endpoint}\n"
    assert not (context.folder / "initial").exists()


def test_once_generate_has_finished_nothing_is_needed(student_run: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    context = student_run()
    (context.folder / "generate" / "manifest.json").write_text("{}")
    initial.run(context)
    assert capsys.readouterr().err.startswith("respond --system base: not needed, since generate has finished")
    assert not (context.folder / "initial").exists()


def test_draws_follow_the_models_probabilities_inside_the_nucleus() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -8.0])
    rows = 20_000
    processors = own_draws(2.0, 0.9, [str(i) for i in range(rows)], "cpu")

    drawn = processors(torch.zeros((rows, 1), dtype=torch.long), logits.repeat(rows, 1)).argmax(-1)

    wanted = torch.softmax(logits / 2, -1)
    wanted = torch.where(torch.arange(5) < 4, wanted, 0.0)  # the first three hold 0.87 of it, so the fourth is kept
    found = torch.bincount(drawn, minlength=5) / rows
    assert torch.allclose(found, wanted / wanted.sum(), atol=0.015), found


def test_a_prompts_draws_do_not_depend_on_its_batch() -> None:
    logits = torch.zeros((3, 500))
    no_ids = torch.zeros((3, 1), dtype=torch.long)
    together, alone = own_draws(1.0, 1.0, ["a", "b", "c"], "cpu"), own_draws(1.0, 1.0, ["b"], "cpu")
    first = [together(no_ids, logits)[1].tolist() for _ in range(3)]
    assert first == [alone(no_ids[:1], logits[:1])[0].tolist() for _ in range(3)]
    assert first[0] != first[1], "every token has draws of its own"


def test_the_longest_prompts_come_first_so_that_a_small_gpu_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[list[int]] = []
    monkeypatch.setattr(answers, "encode", lambda _tokenizer, turn, ask: list(range(len(turn[0]["content"]))))
    monkeypatch.setattr(answers, "_generate", lambda _m, _t, batch, _s: [batches.append([len(it) for it in batch])] * 2)

    list(answers.answer_batches(NoModel(), None, ["aa", "a", "aaaa", "aaa"], answers.Sampling(1, 2)))

    assert batches == [[4, 3], [2, 1]]


class NoModel:
    def eval(self) -> None:
        """Nothing to do."""


def test_too_little_memory_names_what_to_lower_and_the_command() -> None:
    with pytest.raises(ConfigError) as caught, out_of_memory():
        pass
    assert "Lower respond.batch_size, such as: cai respond --system base --run r --set" in str(caught.value)


def out_of_memory() -> Any:
    from contextlib import contextmanager

    @contextmanager
    def block() -> Iterator[None]:
        with libraries("initial", "r"):
            yield
            raise RuntimeError("CUDA out of memory.")

    return block()


def test_the_answers_are_json_a_person_can_read(student_run: Runs) -> None:
    context = student_run()
    initial.run(context)
    first = json.loads((context.folder / "initial" / "responses.jsonl").read_text().splitlines()[0])
    assert first.keys() == Response.model_fields.keys()
