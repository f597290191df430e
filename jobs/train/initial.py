"""Let the student itself write the initial responses on the GPU: `cai respond --system base`.

For recipes with `initial.endpoint: file`, when no endpoint serves the student. Answers generate/prompts.jsonl by
sampling and writes `initial/responses.jsonl`, which generate then reads.

    generate --until prompts  ──►  respond --system base  ──►  generate
    generate/prompts.jsonl         initial/responses.jsonl     critiques, revisions, pairs

Each batch is on disk before the next begins, so a killed job goes on where it was and ends with the same answers; the
batch size may be lowered in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.common.console import StageProgress, say
from jobs.common.errors import ConfigError, StoppedError
from jobs.common.fetched import load_fetched
from jobs.common.jsonl import read_records, sha256_file, write_records
from jobs.common.records import RedTeamPrompt
from jobs.common.stage import OpenStage, Result, RunContext, StagePlan, open_stage
from jobs.train.answered import Answered
from jobs.train.answers import Sampling, answer_batches
from jobs.train.device import Device, choose_device, choose_precision, libraries
from jobs.train.respond import response
from jobs.train.stopping import StopFlag, sigterm_sets
from jobs.train.student import (
    end_of_turn,
    find_student,
    load_model,
    load_tokenizer,
    set_special_tokens,
    template_sha256,
)

STAGE = "initial"


def run(context: RunContext) -> None:
    """Answer every red-team prompt with the base model; does nothing where the recipe does not ask for it.

    Raises:
        ConfigError: generate has not frozen its prompts yet.
        StoppedError: SIGTERM; the same command goes on.
    """
    if context.recipe.initial.endpoint != "file":
        say(f"respond --system base: not needed, since initial.endpoint is {context.recipe.initial.endpoint}")
        return
    generate = context.folder / "generate"
    if (generate / "manifest.json").exists() and not context.redo:  # an imported one never asked for these answers
        say(f"respond --system base: not needed, since generate has finished ({generate})")
        return
    prompts = generate / "prompts.jsonl"
    if not prompts.exists():
        raise ConfigError(f"{prompts} does not exist yet. Run: {context.command('generate', '--until', 'prompts')}")
    with open_stage(context, StagePlan(STAGE, _ingredients(context, prompts), ("fetch",), lock="cuda")) as stage:
        if stage is None:
            return
        with libraries(STAGE, context.typed):
            _answer(stage, read_records(prompts, RedTeamPrompt))


def _ingredients(context: RunContext, prompts: Path) -> dict[str, Any]:
    recipe = context.recipe
    return {
        "initial": recipe.initial.model_dump(mode="json", include={"temperature", "top_p"}),
        "max_new_tokens": recipe.generate.response_tokens,
        "student": recipe.student.model_dump(mode="json"),
        "seed": recipe.seed,
        "chat_template_sha256": template_sha256(recipe.student.chat_template),
        "prompts": sha256_file(prompts),
    }


def _answer(stage: OpenStage, prompts: Sequence[RedTeamPrompt]) -> None:
    device, answered = choose_device(), Answered(stage.folder / "answered.jsonl")
    resumed = len(answered.by_id)
    if resumed:
        say(f"initial: going on after {resumed} of {len(prompts)} answers")
    if any(prompt.id not in answered.by_id for prompt in prompts):
        _answer_missing(stage, prompts, answered, device)
    responses = [answered.by_id[prompt.id] for prompt in prompts]
    path = stage.folder / "responses.jsonl"
    write_records(path, responses)
    truncated = sum(one.truncated for one in responses)
    stage.finish(
        Result(
            [path],
            counts={"prompts": len(prompts), "truncated": truncated},
            tokens={"answers": sum(one.response_tokens for one in responses)},
            device=device.name,
            measures={"resumed_after_answers": resumed},
        )
    )
    answered.remove()
    say(f"initial: {len(responses)} initial responses in {path}; {truncated} hit generate.response_tokens")


def _answer_missing(stage: OpenStage, prompts: Sequence[RedTeamPrompt], answered: Answered, device: Device) -> None:
    context, flag = stage.context, StopFlag()
    student = find_student(context, load_fetched(context))
    tokenizer = load_tokenizer(student)
    model = load_model(student, "none", device, choose_precision("auto", device), "sdpa")
    set_special_tokens(model, tokenizer, end_of_turn(tokenizer, student))
    known = {i for i, prompt in enumerate(prompts) if prompt.id in answered.by_id}
    texts = [prompt.prompt for prompt in prompts]
    with StageProgress(STAGE, stage.folder) as progress, sigterm_sets(flag), flag.waits():
        for batch in answer_batches(model, tokenizer, texts, _sampling(context), known):
            answered.append([response(prompts[i], answer, "base", student.name) for i, answer in batch.items()])
            progress.update("base", len(answered.by_id), total=len(prompts))
            if flag.asked and len(answered.by_id) < len(prompts):
                raise StoppedError(
                    f"Stopped by SIGTERM; {len(answered.by_id)} of {len(prompts)} answers are kept. "
                    "Run the same command to go on, without --redo."
                )


def _sampling(context: RunContext) -> Sampling:
    recipe = context.recipe
    return Sampling(
        max_new_tokens=recipe.generate.response_tokens,
        batch_size=recipe.respond.batch_size,
        temperature=recipe.initial.temperature,
        top_p=recipe.initial.top_p,
        seed=recipe.seed,
    )
