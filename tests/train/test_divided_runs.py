"""Two processes with divided weights (FSDP2, as recipes/accelerate/fsdp.yaml asks) train what one process trains.

Accelerate's and PyTorch's own code divides them, on the CPU (divided_on_cpu/sitecustomize.py), under our launcher.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.common.jsonl import read_json, sha256_file
from jobs.common.stage import RunContext
from jobs.train import dpo, sft
from tests.train.stopped import adapter_sha256, copy_run
from tests.train.test_together import ON_CPU, ROOT, assert_same_training, finish, losses, start, start_and_rest

Runs = Callable[..., RunContext]
FSDP = ROOT / "recipes" / "accelerate" / "fsdp.yaml"


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ON_CPU))


@pytest.fixture
def tied(students: Callable[[str], Path], tmp_path: Path) -> Path:
    """A student whose head is its embedding, as SmolLM2's is."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path / "tied"
    AutoModelForCausalLM.from_pretrained(students("chatml"), tie_word_embeddings=True).save_pretrained(folder)
    AutoTokenizer.from_pretrained(students("chatml")).save_pretrained(folder)
    return folder


def measures(context: RunContext, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = read_json(context.folder / stage / "manifest.json")["measures"]
    return found


def test_divided_weights_train_as_whole_ones_do_and_resume_to_the_bit(tiny_run: Runs, tied: Path, on_cpu: None) -> None:
    # 7 of 8 rows: several passes, and in the second step one process has none. Of rank 1 the second process has no row.
    one = tiny_run(
        student=tied,
        sft={"batch_size": 7, "lora": {"rank": 1, "alpha": 8}},
        dpo={"batch_size": 7, "max_steps": 12, "gradient_checkpointing": True},
    )
    two = copy_run(one, "two")
    sft.run(one)
    finish(start(two, "sft", FSDP))
    stopped = copy_run(two, "stopped")
    dpo.run(one)
    finish(start(two, "dpo", FSDP))

    assert_same_training(one, two, "sft")
    assert_same_training(one, two, "dpo")
    for stage in ("sft", "dpo"):
        found, whole = measures(two, stage), measures(one, stage)
        assert (found["processes"], whole["processes"]) == (2, 1)
        assert (found["weights_share"], whole["weights_share"]) == (pytest.approx(0.5, abs=0.02), 1.0)
        assert found["trainable_parameters"] == whole["trainable_parameters"]
        assert held_out(found) == pytest.approx(held_out(whole), abs=1e-5)

    process = start_and_rest(stopped, "dpo", FSDP)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 75, said
    assert said.count("a checkpoint of step") == 1
    finish(start(stopped, "dpo", FSDP))
    assert losses(stopped, "dpo") == losses(two, "dpo")
    assert adapter_sha256(stopped, "dpo") == adapter_sha256(two, "dpo")
    assert measures(stopped, "dpo")["resumed_from_step"] >= 2
    assert final_state(stopped) == final_state(two)


def held_out(figures: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if name.startswith("held_out") and isinstance(value, float)}


def final_state(context: RunContext) -> dict[str, str]:
    """Hashes of what the last checkpoint holds."""
    last = context.folder / "dpo" / "checkpoints" / "checkpoint-12"
    return {name: sha256_file(last / name) for name in ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt")}
