"""The data folder loads unchanged where others train: TRL's trainers, and a mixer in alignment-handbook's format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from transformers import AutoTokenizer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from trl.data_utils import extract_prompt, is_conversational

from jobs.common.constitution import load_constitution
from jobs.common.records import PreferencePair, RedTeamPrompt, Revision, Split, record_id
from jobs.generate.card import card
from jobs.generate.tables import preference_pair, write_rows
from jobs.train.chat_templates import template_text
from tests.train.builders import ANSWERS, REJECTED, SENTENCES

HUB_FEATURES = datasets.Features(
    {
        "prompt": datasets.Value("string"),
        "messages": [{"content": datasets.Value("string"), "role": datasets.Value("string")}],
        "chosen": [{"content": datasets.Value("string"), "role": datasets.Value("string")}],
        "rejected": [{"content": datasets.Value("string"), "role": datasets.Value("string")}],
    }
)
"""Those of HuggingFaceH4/cai-conversation-harmless that recipes name."""
MEASURES = {
    "teacher": "t",
    "teacher_endpoint": "e",
    "initial_kind": "url",
    "initial_model": "s",
    "judge": None,
    "judge_rule": "off",
}


def chain(number: int, split: Split) -> Revision:
    prompt = f"{SENTENCES[number % len(SENTENCES)]} ({number})"
    return Revision(
        id=record_id("ubuntu", prompt),
        principle_id="ubuntu",
        prompt=prompt,
        split=split,
        initial_response=REJECTED[number % len(REJECTED)],
        critique_request="Where is the fault?",
        critique="It is unkind.",
        revision_request="Write it anew.",
        revision=ANSWERS[number % len(ANSWERS)],
        initial_model="student",
        model="teacher",
        prompt_version="2",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    splits: tuple[Split, ...] = ("sft", "dpo", "held_out")
    kept = [chain(number, splits[number % 3]) for number in range(12)]
    prompts = [
        RedTeamPrompt(
            **{name: getattr(one, name) for name in ("id", "principle_id", "prompt", "split", "model")},
            prompt_version="2",
            sample_index=0,
        )
        for one in kept
    ]
    pairs: dict[str, PreferencePair] = {
        one.id: preference_pair(one).model_copy(update={"rejected": "Be loud.", "preference_probability": 0.8})
        for one in kept
        if one.split != "sft"
    }
    write_rows(tmp_path, prompts, kept, pairs, [])
    counts = dict.fromkeys(
        ("sft", "pairs", "held_out_pairs", "failures", "benign_twins", "rewrites", "minimal_edits"), 4
    )
    text = card(load_constitution("south_africa"), counts, {}, MEASURES)
    (tmp_path / "data" / "README.md").write_text(text, encoding="utf-8")
    return tmp_path / "data"


def load(folder: Path, name: str, split: str) -> datasets.Dataset:
    return datasets.load_dataset(str(folder), name, split=split, cache_dir=str(folder.parent / "cache"))


def test_the_folder_loads_by_its_configurations_and_splits(folder: Path) -> None:
    header = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    for config in header["configs"]:
        for file in config["data_files"]:
            assert load(folder, config["config_name"], file["split"]).num_rows == 4


def test_trl_trains_supervised_on_it_as_it_is(folder: Path, students: Callable[[str], Path], tmp_path: Path) -> None:
    rows = load(folder, "sft", "train")
    assert is_conversational(rows[0])
    trainer = SFTTrainer(
        str(students("chatml")),
        processing_class=chat(students("chatml")),
        args=SFTConfig(output_dir=str(tmp_path / "sft"), **steps()),
        train_dataset=rows,
    )
    assert "input_ids" in trainer.train_dataset.column_names
    trainer.train()
    assert trainer.state.global_step == 1


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # TRL's own
def test_trl_trains_preferences_on_it_as_it_is(folder: Path, students: Callable[[str], Path], tmp_path: Path) -> None:
    rows = load(folder, "prefs", "train")
    split = extract_prompt(rows[0])
    assert split["prompt"] == [{"content": f"{SENTENCES[1]} (1)", "role": "user"}]
    assert split["rejected"] == [{"content": "Be loud.", "role": "assistant"}]
    trainer = DPOTrainer(
        str(students("chatml")),
        processing_class=chat(students("chatml")),
        args=DPOConfig(output_dir=str(tmp_path / "dpo"), **steps()),
        train_dataset=rows,
    )
    trainer.train()
    assert trainer.state.global_step == 1


@pytest.mark.parametrize(("name", "columns"), [("sft", ["messages"]), ("prefs", ["prompt", "chosen", "rejected"])])
def test_a_mixer_joins_it_with_the_hub_dataset(folder: Path, name: str, columns: list[str]) -> None:
    turns = [{"content": "p", "role": "user"}]
    theirs = datasets.Dataset.from_list(
        [{"prompt": "p", "messages": turns, "chosen": turns, "rejected": turns}],
        features=HUB_FEATURES,
    )
    parts = [
        part.remove_columns([column for column in part.column_names if column not in columns])
        for part in (load(folder, "default", f"train_{name}"), theirs)
    ]
    joined = datasets.concatenate_datasets(parts).shuffle(seed=0)
    assert joined.num_rows == 5
    assert joined.features == parts[1].features


def chat(folder: Path) -> Any:
    """The student's tokenizer with our chat template."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template_text("chatml")
    return tokenizer


def steps() -> dict[str, Any]:
    """One step, without a tracker or a file."""
    own = {"max_steps": 1, "per_device_train_batch_size": 2, "report_to": "none", "save_strategy": "no"}
    return own | {"use_cpu": True, "bf16": False, "max_length": 128, "gradient_checkpointing": None}
