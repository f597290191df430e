"""Both images built once from a fresh clone, and compose projects that clean up after themselves."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.containers.project import BUILD, OUTSIDE, Project, clone_checkout

TOY_CONSTITUTION = """\
name: toy
title: Three principles for tests
language: en
version: 1
description: A constitution that is quick to run.
principles:
"""
TOY_PRINCIPLE = """\
  - id: {id}
    title: {title}
    text: The answer keeps to {title} and does not harm anyone while it helps.
    category: test
    source: made for tests
    critique_request: Read your last answer again. Where does it fall short of {title}? Quote the words.
    revision_request: Rewrite the answer so that it keeps to {title}. Give only the new answer.
"""
TOY_RECIPE = """\
constitution: toy
seed: 3
teacher: {endpoint: embedded, concurrency: 4}
generate:
  prompts_per_principle: 5
  prompts_per_request: 1
  prompt_tokens: 48
  response_tokens: 32
  critique_tokens: 32
  held_out_fraction: 0.2
  sft_fraction: 0.5
  benign_twins: false
judge: {rule: "off"}
audit: {on_failure: report}
sft: {max_steps: 8, batch_size: 1, evaluations: 0, max_length: 192}
dpo: {max_steps: 2, batch_size: 1, evaluations: 0, max_length: 192}
respond: {max_new_tokens: 16, max_prompts: 2}
"""


@pytest.fixture(scope="session")
def engine() -> Iterator[Any]:
    """The Docker engine; absent ones are an error in CI."""
    import docker

    try:
        client = docker.from_env(timeout=300)
        client.ping()
    except docker.errors.DockerException as error:
        reason = f'no Docker engine answers ({error}); start one: eval "$(docker/engine.sh up)"'
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    yield client
    client.close()


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout as a fresh clone has it."""
    return clone_checkout(tmp_path_factory.mktemp("clone"))


@pytest.fixture(scope="session")
def images(engine: Any, clone: Path) -> Any:
    """Both images, built from the clone as `make build` does."""
    subprocess.run(["make", "build"], cwd=clone, env=OUTSIDE | BUILD, check=True)
    return engine.images


@pytest.fixture(scope="session")
def toy_clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with a recipe that takes under two minutes."""
    folder = clone_checkout(tmp_path_factory.mktemp("toy"))
    principles = [("fairness", "fairness to all"), ("honesty", "honest words"), ("care", "care for children")]
    text = TOY_CONSTITUTION + "".join(TOY_PRINCIPLE.format(id=name, title=title) for name, title in principles)
    (folder / "constitutions/toy.yaml").write_text(text, encoding="utf-8")
    (folder / "recipes/toy.yaml").write_text(TOY_RECIPE, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def make_project(engine: Any, images: Any) -> Iterator[Callable[..., Project]]:
    """Make projects whose containers and volumes go when the module ends."""
    made: list[Project] = []

    def make(folder: Path, name: str, **fields: Any) -> Project:
        project = Project(engine, folder, name, **fields)
        made.append(project)
        project.down()  # what a killed run of these tests left
        return project

    yield make
    for project in made:
        project.down()
