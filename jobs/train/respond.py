"""Answer the held-out prompts with base, SFT and DPO: `cai respond`.

One base model, two adapters; greedy. Reads fetch, generate (or repair), sft and dpo, writes responses.jsonl,
responses.parquet and page.md, and prints a few prompts side by side. (`cai respond --system base` is a job of its own:
initial.py.)
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.common.console import StageProgress, say
from jobs.common.data_stage import data_folder, data_stage
from jobs.common.errors import DataError
from jobs.common.held_out import HeldOutPrompt, Response, System
from jobs.common.jsonl import read_records, write_atomic, write_records
from jobs.common.records import RedTeamPrompt
from jobs.common.stage import OpenStage, Result, RunContext, StagePlan, open_stage
from jobs.train.answers import Answer, Sampling, answer_batches
from jobs.train.device import libraries
from jobs.train.page import SYSTEMS, print_side_by_side, write_page
from jobs.train.speakers import load_speaker, weights_of
from jobs.train.student import template_sha256

SECTION = "respond"


def run(context: RunContext) -> None:
    """Answer the held-out prompts; see the module docstring."""
    recipe = context.recipe
    ingredients = {
        "respond": recipe.respond.model_dump(mode="json", exclude={"show"}),
        "student": recipe.student.model_dump(mode="json"),
        "chat_template_sha256": template_sha256(recipe.student.chat_template),
    }
    plan = StagePlan(SECTION, ingredients, parents=("fetch", data_stage(context), "sft", "dpo"), lock="cuda")
    with open_stage(context, plan) as stage:
        if stage is None:
            return
        with libraries(SECTION, context.typed):
            _respond(stage)


def _respond(stage: OpenStage) -> None:
    context, settings = stage.context, stage.context.recipe.respond
    path = data_folder(context) / "held_out.jsonl"
    prompts = read_records(path, HeldOutPrompt)[: settings.max_prompts]
    if not prompts:
        raise DataError(
            f"{path}: 0 prompts to answer. "
            f"Run: {context.command('generate', '--redo', '--set generate.held_out_fraction=0.2')}"
        )
    speaker = load_speaker(context, ("sft", "dpo"), weights_of(context, "dpo"))
    texts = [it.prompt for it in prompts]
    sampling = Sampling(settings.max_new_tokens, settings.batch_size)
    responses: list[Response] = []
    with StageProgress(SECTION, stage.folder) as progress:
        for system in SYSTEMS:
            answers: dict[int, Answer] = {}
            with speaker.speaking_as(system):
                for batch in answer_batches(speaker.model, speaker.tokenizer, texts, sampling):
                    answers |= batch
                    progress.update(system, len(answers), total=len(prompts))
            responses += [response(it, answers[i], system, speaker.student.name) for i, it in enumerate(prompts)]
    paths = [stage.folder / name for name in ("responses.jsonl", "responses.parquet", "page.md")]
    write_records(paths[0], responses)
    _write_parquet(paths[1], responses)
    write_page(paths[2], responses, context.run)
    stage.finish(_result(paths, responses, speaker.device.name))
    print_side_by_side(responses, settings.show)
    say(f"respond: {len(prompts)} prompts, {len(responses)} answers in {stage.folder}")


def response(prompt: HeldOutPrompt | RedTeamPrompt, answer: Answer, system: System, student: str) -> Response:
    """One answer as the record that crosses files."""
    return Response(
        id=prompt.id,
        principle_id=prompt.principle_id,
        prompt=prompt.prompt,
        system=system,
        response=answer.text,
        response_tokens=answer.tokens,
        truncated=answer.truncated,
        model=student if system == "base" else f"{student}+{system}",
        prompt_version=prompt.prompt_version,
    )


def _write_parquet(path: Path, responses: Sequence[Response]) -> None:
    import pyarrow
    import pyarrow.parquet

    kinds = {"response_tokens": pyarrow.int64(), "truncated": pyarrow.bool_()}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.string())) for name in Response.model_fields])
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist([it.model_dump(mode="json") for it in responses], schema=schema), buffer
    )
    write_atomic(path, buffer.getvalue())


def _result(paths: list[Path], responses: Sequence[Response], device: str) -> Result:
    measures: dict[str, Any] = {}
    for system in SYSTEMS:
        found = [it for it in responses if it.system == system]
        measures[f"{system}_mean_tokens"] = round(sum(it.response_tokens for it in found) / len(found), 2)
        measures[f"{system}_truncated"] = sum(it.truncated for it in found)
    return Result(
        paths,
        counts={"prompts": len(responses) // len(SYSTEMS), "responses": len(responses)},
        tokens={"answers": sum(it.response_tokens for it in responses)},
        device=device,
        measures=measures,
    )
