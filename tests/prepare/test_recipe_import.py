"""Training files of TRL and the alignment-handbook, key by key, and the recipes that come out."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.__main__ import cai
from jobs.common.errors import ConfigError
from jobs.common.old_names import OLD_NAMES
from jobs.common.recipe import load_recipe
from jobs.common.settings import DpoSettings, LoraSettings, Recipe, SftSettings
from jobs.prepare.recipe_import import import_recipe
from jobs.prepare.recipe_import_defaults import DEFAULTS, LORA_DROPOUT, SCHEDULER
from jobs.prepare.recipe_import_keys import TRANSLATE
from tests.prepare import old_recipes
from tests.prepare.old_recipes import EVERY, MISTRAL_DPO, SMOL_DPO, SMOL_SFT, TRL_DPO


def imported(folder: Path, *texts: str) -> Recipe:
    """Import files one after the other into one recipe."""
    out = folder / "new.yaml"
    for number, text in enumerate(texts):
        (folder / f"old{number}.yaml").write_text(text)
        import_recipe(folder / f"old{number}.yaml", out)
    return load_recipe(str(out))


@pytest.mark.parametrize("name", EVERY)
def test_every_key_is_named_once_with_what_became_of_it(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imported(tmp_path, EVERY[name])
    lines = capsys.readouterr().err.splitlines()
    for key in yaml.safe_load(EVERY[name]):
        (line,) = [line for line in lines if line.split()[0] == key]
        assert any(f" {status} " in line for status in ("kept", "renamed", "dead", "differs", "lost")), line


def test_sft_then_dpo_make_one_recipe_of_the_originals_settings(tmp_path: Path) -> None:
    recipe = imported(tmp_path, SMOL_SFT, SMOL_DPO)

    assert (recipe.student.model, recipe.student.chat_template) == ("HuggingFaceTB/SmolLM2-1.7B-Instruct", "chatml")
    assert (recipe.sft.batch_size, recipe.sft.max_length, recipe.sft.learning_rate) == (64, 2048, 1e-3)
    assert (recipe.sft.quantization, recipe.dpo.quantization, recipe.sft.precision) == ("nf4", "nf4", "bf16")
    assert recipe.sft.lora.model_dump() == {"rank": 16, "alpha": 16, "dropout": 0.05, "target_modules": "all-linear"}
    assert (recipe.dpo.batch_size, recipe.dpo.beta, recipe.dpo.learning_rate) == (16, 0.01, 1e-6)
    assert (recipe.seed, recipe.tracker, recipe.dpo.max_length) == (42, "tensorboard", 1024)


def test_mix_ins_keep_their_proportions_with_our_rows_in_the_place_of_the_constitutional_ones(tmp_path: Path) -> None:
    recipe = imported(tmp_path, SMOL_SFT, SMOL_DPO)

    sft = {(it.dataset, it.split): it.weight for it in recipe.sft.mix_in}
    dpo = {(it.dataset, it.split): it.weight for it in recipe.dpo.mix_in}
    assert sft == {
        ("HuggingFaceH4/cai-conversation-harmless", "train_sft"): 1.0,
        ("HuggingFaceH4/ultrachat_200k", "train_sft"): pytest.approx(207_865 / 21_268, abs=0.01),
    }
    assert dpo == {
        ("HuggingFaceH4/ultrafeedback_binarized", "train_prefs"): pytest.approx(61_135 / 21_269, abs=0.01),
        ("HuggingFaceH4/cai-conversation-harmless", "train_prefs"): 1.0,
    }


def test_test_splits_and_other_configurations_are_never_mixed_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = imported(tmp_path, old_recipes.HANDBOOK_MIXTURE)
    assert [(it.dataset, it.split) for it in recipe.sft.mix_in] == [
        ("HuggingFaceH4/cai-conversation-harmless", "train_sft")
    ]
    said = capsys.readouterr().err
    assert "HuggingFaceH4/ultrachat_200k:test_sft is no train split" in said
    assert "HuggingFaceTB/smoltalk2 has no configuration here (SFT)" in said


def test_a_template_of_another_model_gives_way_to_the_models_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert imported(tmp_path, SMOL_SFT).student.chat_template == "chatml"
    assert "lost     student.chat_template: chatml: the model speaks chatml; zephyr on it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "template"),
    [("mistral_sft", "zephyr"), ("zephyr_dpo", "zephyr"), ("handbook_mixture", "mistral"), ("trl_dpo", "chatml")],
)
def test_the_template_follows_the_file_or_the_model(name: str, template: str, tmp_path: Path) -> None:
    assert imported(tmp_path, EVERY[name]).student.chat_template == template


def test_what_changed_the_result_there_and_has_no_place_here_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imported(tmp_path, MISTRAL_DPO)
    said = capsys.readouterr().err
    assert "lost changed the result there and has no place here: lr_scheduler_type, optim" in said
    assert "If moodlep/mistral-7b-sft-constitutional-ai is one (adapter or merged), import the SFT file first" in said


@pytest.mark.parametrize(("value", "status"), [("true", "dead"), ("false", "lost")])
def test_a_file_that_trained_what_users_say_is_told_that_answers_alone_are_trained_here(
    value: str, status: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imported(tmp_path, f"{SMOL_SFT}\nassistant_only_loss: {value}\n")

    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("assistant_only_loss")]
    assert f" {status} " in line
    assert line.endswith("every answer is trained, and nothing else is")


SAID_NOWHERE = {
    "sft": """
num_train_epochs differs not set there (3 by default) → sft.epochs: 1 here
per_device_train_batch_size differs not set there (8 by default) → sft.batch_size: 16 here
learning_rate differs not set there (2e-05 by default) → sft.learning_rate: 0.0002 here
warmup_steps differs not set there (0 by default) → sft.warmup_fraction: 0.1 here
lr_scheduler_type lost not set there (linear by default) → cosine here
use_peft lost not set there (false by default): every weight is trained there, here an adapter (sft.lora)
""",
    "dpo": """
num_train_epochs differs not set there (3 by default) → dpo.epochs: 1 here
per_device_train_batch_size differs not set there (8 by default) → dpo.batch_size: 16 here
learning_rate differs not set there (1e-06 by default) → dpo.learning_rate: 5e-06 here
warmup_steps differs not set there (0 by default) → dpo.warmup_fraction: 0.1 here
lr_scheduler_type lost not set there (linear by default) → cosine here
use_peft lost not set there (false by default): every weight is trained there, here an adapter (sft.lora)
""",
}


def unsaid(shown: str) -> list[str]:
    """The lines about what an old file does not set, with single spaces."""
    return [" ".join(line.split()) for line in shown.splitlines() if "not set there (" in line]


@pytest.mark.parametrize(("stage", "only"), [("sft", "packing: true"), ("dpo", "beta: 0.2")])
def test_a_default_of_theirs_that_is_another_one_here_is_said_where_the_file_relies_on_it(
    stage: str, only: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imported(tmp_path, f"{only}\nnum_train_epochs: null\n")
    said = capsys.readouterr().err
    assert unsaid(said) == SAID_NOWHERE[stage].strip().splitlines()
    assert f"{stage.upper()} file with 2 keys and 6 defaults that are others here: 1 " in said
    assert "to train as there: num_train_epochs, per_device_train_batch_size, learning_rate, warmup_steps\n" in said
    assert "has no place here: lr_scheduler_type, use_peft\n" in said


@pytest.mark.parametrize(
    ("written", "silent"),
    [
        ("num_train_epochs: 1", "num_train_epochs"),
        ("max_steps: 50", "num_train_epochs"),
        ("gradient_accumulation_steps: 2", "per_device_train_batch_size"),
        ("warmup_ratio: 0", "warmup_steps"),
        ("lr_scheduler_type: cosine", "lr_scheduler_type"),
        ("use_peft: false", "use_peft"),
    ],
)
def test_what_a_file_sets_in_any_way_is_no_default(
    written: str, silent: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imported(tmp_path, f"packing: true\n{written}\n")
    every = [line.split()[0] for line in SAID_NOWHERE["sft"].strip().splitlines()]
    assert [line.split()[0] for line in unsaid(capsys.readouterr().err)] == [key for key in every if key != silent]


def test_a_file_that_says_everything_relies_on_no_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imported(tmp_path, SMOL_SFT, SMOL_DPO)
    said = capsys.readouterr().err
    assert unsaid(said) == []
    assert "others here" not in said


def test_training_of_every_weight_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imported(tmp_path, SMOL_SFT.replace("use_peft: true", "use_peft: false"))
    said = capsys.readouterr().err
    assert "lost     every weight is trained there, here an adapter (sft.lora)\n" in said
    assert "has no place here: use_peft, " in said


def test_an_adapters_defaults_are_said_where_there_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = ("use_peft: true", "num_train_epochs: 1", "per_device_train_batch_size: 8", "lr_scheduler_type: cosine")
    imported(tmp_path, "\n".join(["packing: true", "learning_rate: 1e-4", "warmup_ratio: 0.1", *written]))
    assert unsaid(capsys.readouterr().err) == [
        "lora_dropout differs not set there (0.05 by default) → sft.lora.dropout: 0 here",
        "lora_target_modules differs not set there (PEFT's choice for the model by default) → "
        "sft.lora.target_modules: all-linear here",
    ]


def test_a_dpo_file_on_an_adapter_folder_becomes_the_chain_from_its_base(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = tmp_path / "data" / "their-sft"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/Base-7B"}))
    recipe = imported(tmp_path, TRL_DPO.replace("Qwen/Qwen2.5-0.5B-Instruct", str(adapter)))
    assert recipe.student.model == "org/Base-7B"
    assert "the base of that adapter; sft trains a new one, which dpo continues" in capsys.readouterr().err


def test_a_dpo_file_on_an_sft_recipe_keeps_its_text_and_names_what_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imported(tmp_path, SMOL_SFT)
    before = (tmp_path / "new.yaml").read_text() + "# mine\n"
    (tmp_path / "new.yaml").write_text(before)
    (tmp_path / "dpo.yaml").write_text(MISTRAL_DPO.replace("seed: 42", "seed: 7"))
    import_recipe(tmp_path / "dpo.yaml", tmp_path / "new.yaml")
    assert (tmp_path / "new.yaml").read_text().startswith(before)
    said = capsys.readouterr().err
    assert "lost     sft.lora.rank stays 16: dpo continues that adapter" in said
    assert "lost     seed stays 42, one for the whole run" in said
    assert "student.model stays HuggingFaceTB/SmolLM2-1.7B-Instruct: dpo continues this run's sft adapter" in said


@pytest.mark.parametrize(("sft", "dpo"), [(True, False), (False, True), (True, True), (False, False)])
def test_dpo_keeps_the_frozen_weights_that_sft_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sft: bool, dpo: bool
) -> None:
    texts = [SMOL_SFT, SMOL_DPO]
    assert all("load_in_4bit: true" in text for text in texts)
    for i, wanted in enumerate((sft, dpo)):
        texts[i] = texts[i].replace("load_in_4bit: true", f"load_in_4bit: {str(wanted).lower()}")
    recipe = imported(tmp_path, *texts)

    stays = "nf4" if sft else "none"
    assert (recipe.sft.quantization, recipe.dpo.quantization) == (stays, stays)
    status = "dead" if sft == dpo else "lost"
    said = capsys.readouterr().err
    assert re.search(rf"load_in_4bit .* {status} +sft\.quantization stays {stays}: dpo goes on", said)


def test_losses_keep_their_weights_and_rpo_becomes_one_of_them(tmp_path: Path) -> None:
    assert imported(tmp_path, TRL_DPO).dpo.loss_weights == [1.0, 0.2]
    rpo = TRL_DPO.replace("loss_type: [sigmoid, sft]\nloss_weights: [1.0, 0.2]", "rpo_alpha: 0.3")
    (tmp_path / "new.yaml").unlink()
    recipe = imported(tmp_path, rpo)
    assert (recipe.dpo.loss_type, recipe.dpo.loss_weights) == (["sigmoid", "sft"], [1.0, 0.3])


@pytest.mark.parametrize("text", ["loss_type: [ipo]\nrpo_alpha: 0.3", "rpo_alpha: 0.3\nloss_type: ipo"])
def test_rpo_stands_beside_the_loss_wherever_it_is_written(text: str, tmp_path: Path) -> None:
    recipe = imported(tmp_path, TRL_DPO.replace("loss_type: [sigmoid, sft]\nloss_weights: [1.0, 0.2]", text))
    assert (recipe.dpo.loss_type, recipe.dpo.loss_weights) == (["ipo", "sft"], [1.0, 0.3])


@pytest.mark.parametrize(
    ("warmup", "share"),
    [("warmup_steps: 0.03", 0.03), ("warmup_steps: 5\nmax_steps: 50", 0.1), ("warmup_steps: 5", 0.1)],
    ids=["share", "steps of known steps", "steps of unknown steps"],
)
def test_warmup_becomes_a_share_of_the_steps(warmup: str, share: float, tmp_path: Path) -> None:
    assert imported(tmp_path, TRL_DPO.replace("warmup_steps: 0.03", warmup)).dpo.warmup_fraction == share


@pytest.mark.parametrize(
    ("change", "precision"),
    [("dtype: float32", "fp32"), ("dtype: torch.bfloat16", "bf16"), ("dtype: auto", "auto"), ("bf16: true", "bf16")],
)
def test_the_dtype_becomes_the_precision(change: str, precision: str, tmp_path: Path) -> None:
    assert imported(tmp_path, TRL_DPO.replace("dtype: bfloat16", change)).dpo.precision == precision


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            SMOL_SFT + "warmup_ration: 0.1\nlora_q: 3\n",
            r"old0\.yaml:\d+: not keys of .*: warmup_ration, lora_q\. Remove",
        ),
        ("model_name_or_path: a/b\n", "SFT or DPO"),
        ("beta: strong\n", r"old0\.yaml:1: beta: expected a number, found 'strong'"),
        ("beta: -1\n", r"old0\.yaml \(translated\).*dpo\.beta.*found -1.*Correct that value, then import again"),
        ("rpo_alpha: 1\nloss_type: [ipo, sft]\n", r"old0\.yaml:1: rpo_alpha beside a list of losses \(ipo, sft\)"),
        ("beta: 0.1\nloss_type: kto_pair\n", r"dpo\.loss_type: .*found 'kto_pair'"),
        ("packing: true\ndataset_mixer: [a, b]\n", r"old0\.yaml:2: dataset_mixer: not a list of datasets"),
        ("packing: true\nchat_template: '### {{ messages }}'\n", "this template is none of ours"),
        ("- beta\n", "expected a mapping"),
        ("beta: 0.1\nbeta: 0.2\n", "written twice"),
    ],
    ids=["unknown", "neither", "no number", "range", "rpo", "loss", "mixer", "template", "list", "twice"],
)
def test_what_cannot_be_translated_is_refused_by_name_and_nothing_is_written(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        imported(tmp_path, text)
    assert not (tmp_path / "new.yaml").exists()


@pytest.mark.parametrize("texts", [(SMOL_SFT, SMOL_SFT), (SMOL_SFT, SMOL_DPO, SMOL_DPO), (SMOL_DPO, SMOL_SFT)])
def test_a_recipe_that_has_the_section_is_never_written_over(texts: tuple[str, ...], tmp_path: Path) -> None:
    imported(tmp_path, *texts[:-1])
    before = (tmp_path / "new.yaml").read_bytes()
    with pytest.raises(ConfigError, match=r"new\.yaml exists already; only a DPO file can be added"):
        imported(tmp_path, texts[-1])
    assert (tmp_path / "new.yaml").read_bytes() == before


def test_without_out_the_recipe_goes_to_the_screen_alone(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text(TRL_DPO)
    done = CliRunner().invoke(cai, ["recipe", "import", str(tmp_path / "old.yaml")])
    assert done.exit_code == 0, done.output
    assert Recipe.model_validate(yaml.safe_load(done.stdout)).dpo.batch_size == 32
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.yaml"]


def test_every_setting_of_trl_is_known() -> None:
    from trl import DPOConfig, ModelConfig, ScriptArguments, SFTConfig

    fields = {it.name for of in (DPOConfig, ModelConfig, ScriptArguments, SFTConfig) for it in dataclasses.fields(of)}
    assert fields - set(OLD_NAMES) - set(TRANSLATE) == set()


def test_the_defaults_it_names_are_trls_and_differ_from_ours_and_all_others_are_the_same() -> None:
    from trl import DPOConfig, ModelConfig, SFTConfig

    trl: dict[str, dict[str, Any]] = {
        "sft": {it.name: it.default for it in dataclasses.fields(SFTConfig)},
        "dpo": {it.name: it.default for it in dataclasses.fields(DPOConfig)},
    }
    ours = {"sft": SftSettings().model_dump(), "dpo": DpoSettings().model_dump()}
    for stage, theirs in trl.items():
        for one in DEFAULTS:
            assert getattr(one, stage) == theirs[one.keys[0]] != ours[stage][one.name]
        assert theirs["gradient_accumulation_steps"] == 1
        assert theirs["lr_scheduler_type"] == SCHEDULER
        assert theirs["max_length"] == ours[stage]["max_length"]
    assert all(trl["dpo"][name] == ours["dpo"][name] for name in ("beta", "label_smoothing", "loss_weights"))
    model, lora = {it.name: it.default for it in dataclasses.fields(ModelConfig)}, LoraSettings()
    assert (model["use_peft"], model["lora_target_modules"], model["load_in_4bit"]) == (False, None, False)
    assert (model["lora_r"], model["lora_alpha"]) == (lora.rank, lora.alpha)
    assert model["lora_dropout"] == LORA_DROPOUT != lora.dropout


KEYS = st.sampled_from(sorted(OLD_NAMES | TRANSLATE))
VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "path", "datasets"]), inner),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None)
@given(values=st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_values_give_a_valid_recipe_or_one_line(values: dict[str, Any], tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("any")
    (folder / "old.yaml").write_text(yaml.safe_dump({"beta": 0.1} | values))
    fault = None
    try:
        import_recipe(folder / "old.yaml", folder / "new.yaml")
    except ConfigError as error:
        fault = str(error)
    if fault is None:
        load_recipe(str(folder / "new.yaml"))
    else:
        assert "\n" not in fault
