"""Let the student itself write the initial responses on the GPU: `cai initial`.

For recipes with `initial.endpoint: file`, when no endpoint serves the student. Answers generate/prompts.jsonl by
sampling and writes `initial/responses.jsonl`, which generate then reads.
"""

from __future__ import annotations

from functools import partial

from jobs.common.console import StageProgress, say
from jobs.common.errors import ConfigError
from jobs.common.fetched import load_fetched
from jobs.common.jsonl import read_records, sha256_file, write_records
from jobs.common.records import RedTeamPrompt
from jobs.common.stage import OpenStage, Result, RunContext, StagePlan, open_stage
from jobs.train.answers import Sampling, answer_prompts
from jobs.train.device import choose_device, libraries
from jobs.train.respond import response
from jobs.train.student import (
    end_of_turn,
    find_student,
    load_model,
    load_tokenizer,
    set_special_tokens,
    template_sha256,
)

STAGE = "initial"


def run_initial(context: RunContext) -> None:
    """Answer every red-team prompt with the base model; see the module docstring.

    Raises:
        ConfigError: generate has not frozen its prompts yet.
    """
    recipe, prompts = context.recipe, context.folder / "generate" / "prompts.jsonl"
    if not prompts.exists():
        raise ConfigError(f"{prompts} does not exist yet. Run: {context.command('generate')}")
    ingredients = {
        "initial": recipe.initial.model_dump(mode="json", include={"temperature", "top_p"}),
        "max_new_tokens": recipe.generate.response_tokens,
        "batch_size": recipe.respond.batch_size,
        "student": recipe.student.model_dump(mode="json"),
        "seed": recipe.seed,
        "chat_template_sha256": template_sha256(recipe.student.chat_template),
        "prompts": sha256_file(prompts),
    }
    with open_stage(context, StagePlan(STAGE, ingredients, parents=("fetch",), lock="cuda")) as stage:
        if stage is None:
            return
        with libraries("respond", context.run):
            _answer(stage)


def _answer(stage: OpenStage) -> None:
    context, recipe = stage.context, stage.context.recipe
    prompts = read_records(context.folder / "generate" / "prompts.jsonl", RedTeamPrompt)
    device, student = choose_device(), find_student(context, load_fetched(context))
    tokenizer = load_tokenizer(student)
    model = load_model(student, "none", device)
    set_special_tokens(model, tokenizer, end_of_turn(tokenizer, student))
    sampling = Sampling(
        max_new_tokens=recipe.generate.response_tokens,
        batch_size=recipe.respond.batch_size,
        temperature=recipe.initial.temperature,
        top_p=recipe.initial.top_p,
        seed=recipe.seed,
    )
    with StageProgress(STAGE, stage.folder) as progress:
        done = partial(progress.update, "base", total=len(prompts))
        answers = answer_prompts(model, tokenizer, [it.prompt for it in prompts], sampling, done)
    responses = [response(it, answer, "base", student.name) for it, answer in zip(prompts, answers, strict=True)]
    path = stage.folder / "responses.jsonl"
    write_records(path, responses)
    stage.finish(
        Result(
            [path],
            counts={"prompts": len(prompts), "truncated": sum(it.truncated for it in responses)},
            tokens={"answers": sum(it.response_tokens for it in responses)},
            device=device.name,
        )
    )
    say(f"initial: {len(responses)} initial responses in {path}")
