"""Which endpoints a run asks, decided from recipe and environment before anything is asked or started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jobs.common.errors import ConfigError
from jobs.common.fetched import load_fetched, resolve
from jobs.common.jsonl import sha256_file
from jobs.common.settings import Recipe
from jobs.common.stage import RunContext
from jobs.generate.embedded import Served, Slots, serve
from jobs.generate.endpoint import Endpoint, base_url, host_of, remote_endpoint
from jobs.generate.wording_prompts import SHOWN_BYTES

BRIEF_TOKENS = 96
"""Room for one brief of a request for prompts, in tokens."""
TURN_TOKENS = 384
"""Room for a chat template, a principle and a request, in tokens."""
DEMONSTRATION_TOKENS = 768


@dataclass(frozen=True)
class Endpoints:
    """Who writes what."""

    teacher: Endpoint
    student: Endpoint | None
    """Who writes initial responses; None for `file` and `teacher`."""


def logical_endpoints(recipe: Recipe) -> dict[str, str]:
    """What can be said of the endpoints without files and keys, for the stage's fingerprint."""
    teacher = "embedded" if recipe.teacher.endpoint == "embedded" else host_of(base_url(os.environ))
    initial = recipe.initial.endpoint
    return {"teacher": teacher, "initial": host_of(initial) if "://" in initial else initial}


@contextmanager
def open_endpoints(context: RunContext, *, with_student: bool = True) -> Iterator[Endpoints]:
    """Check keys and addresses, then start the embedded servers the recipe needs; they end with the block.

    Raises:
        ConfigError: no key, no base URL, an unknown initial endpoint, or no weights.
    """
    recipe = context.recipe
    if recipe.teacher.mode == "batch" and recipe.teacher.endpoint == "embedded":
        raise ConfigError(
            "teacher.mode is batch, but the embedded teacher has no Batch API. Set teacher.mode to live, or "
            "teacher.endpoint to api."
        )
    teacher = _remote_teacher(recipe) if recipe.teacher.endpoint == "api" else None
    student = _remote_student(recipe) if with_student else None
    with ExitStack() as stack:
        servers = Servers(context, stack)
        if teacher is None:
            teacher = servers.endpoint("teacher_gguf", recipe.teacher.model)
        if with_student and recipe.initial.endpoint == "embedded":
            student = servers.endpoint("initial_gguf", recipe.initial.model)
        yield Endpoints(teacher, student)


@dataclass
class Servers:
    """The embedded servers of one run, one set per GGUF file."""

    context: RunContext
    stack: ExitStack
    running: dict[Path, Served] = field(default_factory=dict)

    def endpoint(self, which: Literal["teacher_gguf", "initial_gguf"], model: str) -> Endpoint:
        """An endpoint of the GGUF that fetch brought; starts its servers where they do not run yet.

        Raises:
            ConfigError: fetch brought none, or it cannot be served.
        """
        recipe = self.context.recipe
        gguf = _fetched_path(self.context, which)
        if gguf not in self.running:
            slots = Slots(parallel=recipe.teacher.concurrency, context_tokens=context_tokens(recipe))
            self.running[gguf] = self.stack.enter_context(serve(gguf, slots, self.context.command("fetch", "--redo")))
        # A small model writes far better critiques as chat turns than inside JSON.
        structured: Literal["on", "off"] = "on" if recipe.teacher.structured == "on" else "off"
        served = self.running[gguf]
        return Endpoint(f"embedded:{sha256_file(gguf)}", model, served.urls, structured, slots=served.slots)


def _remote_teacher(recipe: Recipe) -> Endpoint:
    return remote_endpoint(
        base_url(os.environ), recipe.teacher.model, recipe.teacher.structured, "OPENAI_API_KEY", os.environ
    )


def _remote_student(recipe: Recipe) -> Endpoint | None:
    url = recipe.initial.endpoint
    if url in {"embedded", "file", "teacher"}:
        return None
    if "://" not in url:
        raise ConfigError(f"initial.endpoint: found {url!r}. Use embedded, a URL, file or teacher.")
    # The teacher's key belongs to the teacher's host; another host has its own.
    same_host = recipe.teacher.endpoint == "api" and host_of(url) == host_of(base_url(os.environ))
    name = "OPENAI_API_KEY" if same_host else "INITIAL_API_KEY"
    return remote_endpoint(url, recipe.initial.model, "off", name, os.environ)


def _fetched_path(context: RunContext, which: Literal["teacher_gguf", "initial_gguf"]) -> Path:
    fetched = load_fetched(context)
    found = fetched.teacher_gguf if which == "teacher_gguf" else fetched.initial_gguf
    path = resolve(context.runs, found) if found else None
    if path is None or not path.is_file():
        missing = f"{which}: {path or 'not fetched'}"
        raise ConfigError(f"The embedded model is missing ({missing}). Run: {context.command('fetch', '--redo')}")
    return path


def context_tokens(recipe: Recipe) -> int:
    """Longest request and reply of this recipe together, in tokens, rounded up to 256."""
    settings = recipe.generate
    chain = 2 * settings.response_tokens + settings.critique_tokens + 3 * TURN_TOKENS
    chain += settings.few_shot * DEMONSTRATION_TOKENS
    prompts = settings.prompt_tokens + 2 * TURN_TOKENS
    if settings.prompts_per_request > 1:
        prompts += settings.prompts_per_request * BRIEF_TOKENS + SHOWN_BYTES // 2
    return -(-max(chain, prompts, 1024) // 256) * 256
