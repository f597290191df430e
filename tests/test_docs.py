"""The documents say what the code does now."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from jobs.__main__ import STAGES
from jobs.common.recipe import PROJECT

PAGES = sorted(path for path in PROJECT.glob("**/*.md") if not {".venv", ".venvs", "runs", "results"} & set(path.parts))
README = (PROJECT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (PROJECT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [path for name in listed.stdout.splitlines() if (path := PROJECT / name).is_file()]


def test_the_stage_table_lists_the_stages_in_order() -> None:
    assert re.findall(r"^\| `([a-z]+)` \| `cai-", README, re.MULTILINE) == list(STAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_every_make_target_named_in_a_page_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"`{1,3}[^`]+`{1,3}", text))
    assert set(re.findall(r"\bmake ([a-z][a-z-]+)", code)) <= TARGETS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_file_tree_names_what_is_there() -> None:
    tree = README.split("## Where things are")[1].split("```")[1]
    names = [line.split()[0] for line in tree.strip().splitlines()]
    assert len(names) > 8
    assert [name for name in names if not (PROJECT / name).exists()] == []


def test_promised_targets_are_in_the_makefile() -> None:
    promised = "demo test test-containers check build generate sft dpo dpo-detached results key lock clean"
    assert set(promised.split()) <= TARGETS


def test_every_variable_of_the_example_is_used_and_every_used_one_is_explained() -> None:
    explained = set(re.findall(r"^#?([A-Z_]+)=", (PROJECT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
    compose = "".join(path.read_text(encoding="utf-8") for path in PROJECT.glob("compose*.yaml"))
    used = set(re.findall(r"\$\{([A-Z_]+)", compose))
    assert used <= explained
    assert explained - used <= {"COMPOSE_FILE"}


def test_no_file_names_a_machine_path_a_registry_host_or_a_key() -> None:
    forbidden = re.compile(
        r"/wor"
        + r"k/main|/ro"
        + r"ot/\.pyenv|files\.python"
        + r"hosted|/si"
        + r"mple/|\bsk-[A-Za-z0-9]{20,}|hf_[A-Za-z0-9]{30,}"
    )
    found = [
        f"{path.relative_to(PROJECT)}: {match.group()}"
        for path in tracked()
        if path.suffix not in {".png", ".parquet"}
        and (match := forbidden.search(path.read_text(encoding="utf-8", errors="replace")))
    ]
    assert found == []


def test_locks_are_hashed_and_hold_no_url() -> None:
    for path in (PROJECT / "requirements").glob("*.lock"):
        text = path.read_text(encoding="utf-8")
        assert "://" not in text
        pinned = re.findall(r"^[a-zA-Z0-9_.-]+==\S+", text, re.MULTILINE)
        assert len(pinned) > 30
        assert all(f"{pin}" in text and "--hash=sha256:" in text.split(pin, 1)[1].split("\n")[1] for pin in pinned)


def test_both_image_locks_fit_the_development_lock() -> None:
    def pins(name: str) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        text = (PROJECT / "requirements" / f"{name}.lock").read_text(encoding="utf-8")
        for package, version in re.findall(r"^([a-zA-Z0-9_.-]+)==(\S+)", text, re.MULTILINE):
            found.setdefault(package, set()).add(version)
        return found

    everything = pins("dev")
    for image in ("cpu", "cuda"):
        assert {name: versions for name, versions in pins(image).items() if everything.get(name) != versions} == {}
    assert "torch" not in pins("cpu")
    assert "openai" not in pins("cuda")
    assert "llama-cpp-python" not in everything
