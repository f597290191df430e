"""What a message tells people to run can be pasted as it stands: it names run and recipe."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.common.errors import DataError
from jobs.common.jsonl import read_json, sha256_file, write_json
from jobs.common.recipe import PROJECT
from jobs.common.stage import RunContext
from jobs.train import dpo, sft, speakers

GIVEN = "--recipe mine.yaml --runs elsewhere"


def change_output(sft_folder: Path, name: str, change: Callable[[Path], None]) -> None:
    """Change an output and the manifest with it, so that only what reads it can find the fault."""
    change(sft_folder / name)
    manifest = read_json(sft_folder / "manifest.json")
    outputs = {key: digest for key, digest in manifest["outputs"].items() if key != name}
    if (sft_folder / name).exists():
        outputs[name] = sha256_file(sft_folder / name)
    write_json(sft_folder / "manifest.json", manifest | {"outputs": outputs})


def poison(weights: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_file({name: value * float("nan") for name, value in load_file(weights).items()}, weights)


def of_another_base(config: Path) -> None:
    write_json(config, read_json(config) | {"base_model_name_or_path": "other"})


FAULTS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "another base": ("adapter/adapter_config.json", of_another_base, "the adapter's base is other"),
    "no configuration": ("adapter/adapter_config.json", Path.unlink, "adapter_config.json does not exist"),
    "half weights": ("adapter/adapter_model.safetensors", lambda path: path.write_bytes(b"{"), "does not fit"),
    "no number": ("adapter/adapter_model.safetensors", poison, "gives a pair the log-probabilities"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_dpo_names_the_whole_command_that_trains_sft_anew(tiny_run: Callable[..., RunContext], fault: str) -> None:
    context = replace(tiny_run(sft={"max_steps": 1}), given=GIVEN)
    sft.run(context)
    name, change, words = FAULTS[fault]
    change_output(context.folder / "sft", name, change)

    with pytest.raises(DataError, match=words) as stopped:
        dpo.run(context)
    assert str(stopped.value).endswith(f"Run: cai sft --run r {GIVEN} --redo")


def test_who_speaks_with_a_damaged_adapter_names_it_too(tiny_run: Callable[..., RunContext]) -> None:
    context = replace(tiny_run(sft={"max_steps": 1}), given=GIVEN)
    sft.run(context)
    (context.folder / "sft" / "adapter" / "adapter_config.json").unlink()

    with pytest.raises(DataError) as stopped:
        speakers.load_speaker(context, ["sft"], speakers.weights_of(context, "sft"))
    assert str(stopped.value).endswith(f"Run: cai sft --run r {GIVEN} --redo")


def test_no_message_of_training_spells_a_command_without_its_run() -> None:
    """Only what is printed counts: `Run: cai ...` in a docstring would be no better."""
    spelled = re.compile(r"[Rr]un: cai (?P<rest>[^\"`]*)")
    bare = [
        f"{path.relative_to(PROJECT)}: {found.group()}"
        for path in sorted((PROJECT / "jobs" / "train").rglob("*.py"))
        for found in spelled.finditer(path.read_text(encoding="utf-8"))
        if "--run " not in found["rest"] and found["rest"] != "doctor. "  # where no run is known
    ]
    assert bare == []
