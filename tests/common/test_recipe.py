from __future__ import annotations

from pathlib import Path

import pytest

from jobs.common.errors import ConfigError
from jobs.common.old_names import OLD_NAMES
from jobs.common.recipe import PROJECT, key_paths, load_recipe
from jobs.common.reference import reference
from jobs.common.settings import Recipe

SHIPPED = sorted(path.stem for path in (PROJECT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_recipe_loads(name: str) -> None:
    assert load_recipe(name).constitution in {"south_africa", "romania", "anthropic"}


def test_the_four_promised_recipes_are_shipped() -> None:
    assert {"demo", "smollm2-135m", "smollm2-1.7b", "mistral-7b"} <= set(SHIPPED)


@pytest.mark.parametrize("name", ["smollm2-135m", "smollm2-1.7b", "mistral-7b"])
def test_a_mixed_recipe_is_its_namesake_with_train_splits_of_hub_datasets(name: str) -> None:
    same = {"sft": {"mix_in", "epochs", "max_length"}, "dpo": {"mix_in", "epochs", "max_length"}}
    mixed = load_recipe(f"{name}-mixed")
    assert mixed.model_dump(exclude=same) == load_recipe(name).model_dump(exclude=same)
    assert {it.split for it in mixed.sft.mix_in} == {"train_sft"}
    assert {it.split for it in mixed.dpo.mix_in} == {"train_prefs"}


def test_the_reference_page_is_current() -> None:
    page = (PROJECT / "recipes" / "README.md").read_text(encoding="utf-8")
    assert page == reference(), "run: python -m jobs.common.reference > recipes/README.md"


def test_the_reference_page_names_every_key() -> None:
    twins = ("dpo.mix_in.", "initial.price.")  # tables shown once, under another section
    leaves = [path for path in key_paths(Recipe) if not path.startswith(twins)]
    page = reference()
    missing = [path for path in leaves if f"`{path}`" not in page]
    assert missing == []


def test_every_key_has_a_meaning() -> None:
    rows = [row for row in reference().splitlines() if row.startswith("| `") and row.count("|") == 5]
    assert len(rows) > 40
    assert [row for row in rows if row.rstrip("| ").endswith("|")] == []


def test_a_set_change_reaches_the_setting_with_its_type() -> None:
    recipe = load_recipe("demo", ["dpo.beta=5e-7", "constitution=romania", "sft.max_steps=null"])
    assert recipe.dpo.beta == pytest.approx(5e-7)
    assert recipe.constitution == "romania"
    assert recipe.sft.max_steps is None


@pytest.mark.parametrize("value", ["on", "off", "auto"])
def test_on_and_off_are_words_and_no_booleans(value: str, tmp_path: Path) -> None:
    assert load_recipe("demo", [f"teacher.structured={value}"]).teacher.structured == value
    (tmp_path / "mine.yaml").write_text(f"teacher:\n  structured: {value}\nsft:\n  gradient_checkpointing: true\n")
    recipe = load_recipe(str(tmp_path / "mine.yaml"))
    assert (recipe.teacher.structured, recipe.sft.gradient_checkpointing) == (value, True)


def test_dpo_has_the_frozen_weights_of_sft_where_its_own_are_not_said(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("seed: 1\nsft:\n  quantization: nf4\ndpo:\n  beta: 0.2\n")
    recipe = load_recipe(str(tmp_path / "mine.yaml"))

    assert (recipe.sft.quantization, recipe.dpo.quantization, recipe.dpo.beta) == ("nf4", "nf4", 0.2)
    assert load_recipe("demo", ["sft.quantization=nf4"]).dpo.quantization == "nf4"
    assert load_recipe("demo").dpo.quantization == "none"


def test_sft_and_dpo_on_other_frozen_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("seed: 1\nsft:\n  quantization: nf4\ndpo:\n  quantization: none\n")
    same = r"Give both the same, such as --set sft\.quantization={0} --set dpo\.quantization={0}$"

    with pytest.raises(ConfigError, match=r"mine\.yaml:5: dpo\.quantization is none, sft\.quantization is nf4: "):
        load_recipe(str(tmp_path / "mine.yaml"))
    with pytest.raises(ConfigError, match=rf"^--set: .*{same.format('none')}"):
        load_recipe("demo", ["dpo.quantization=nf4"])
    with pytest.raises(ConfigError, match=rf"mine\.yaml:3: dpo\.quantization is none, .*{same.format('nf4')}"):
        load_recipe(str(tmp_path / "mine.yaml"), ["dpo.quantization=none"])
    for both in ("none", "nf4"):
        sets = [f"{section}.quantization={both}" for section in ("sft", "dpo")]
        assert load_recipe(str(tmp_path / "mine.yaml"), sets).dpo.quantization == both


def test_losses_that_go_together_are_taken() -> None:
    several = load_recipe("demo", ["dpo={loss_type: [sigmoid, sft], loss_weights: [1, 0.2], label_smoothing: judge}"])
    assert several.dpo.loss_weights == [1, 0.2]
    assert load_recipe("demo", ["dpo={loss_type: exo_pair, label_smoothing: 0.001}"]).dpo.loss_type == "exo_pair"


def test_a_value_may_hold_an_equals_sign() -> None:
    assert load_recipe("demo", ["constitution=./a=b.yaml"]).constitution == "./a=b.yaml"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("dpo.betta=1", r"--set: unknown key 'dpo.betta'. Did you mean 'dpo.beta'\?"),
        ("betta=1", r"--set: unknown key 'betta'. Did you mean 'dpo.beta'\?"),
        ("sft.torch_dtype=bfloat16", "unknown key 'sft.torch_dtype'. That name is TRL's or the alignment-handbook's"),
        ("sft.max_seq_length=2048", "here it is max_length"),
        ("sft.learning_rate=abc", "sft.learning_rate: .*valid number.* found 'abc'"),
        ("dpo.beta=0", "dpo.beta: .*greater than 0, found 0"),
        ("sft.lora.rank=-1", "sft.lora.rank: .*greater than 0, found -1"),
        ("zzzz=1", r"unknown key 'zzzz'. All keys: recipes/README.md"),
        ("dpo.beta", "expected key=value"),
        ("initial.endpoint=http://me:secret@host/v1", r"initial.endpoint: .*found 'http://\.\.\.@host/v1'"),
        ("seed.x=1", "seed is a value, not a section"),
        ("seed={", "is not a YAML value"),
        ("teacher.price.dated=2025-02-30", "is not a YAML value"),
        ("dpo.loss_weights=[1, 2]", "dpo: loss_weights needs one weight per loss: 1 for sigmoid, found 2"),
        ("dpo={loss_type: [sft, sigmoid, sft]}", r"names a loss twice \(sft, sigmoid, sft\)"),
        ("dpo={loss_type: hinge, label_smoothing: 0.1}", "label_smoothing: 0.1 is not defined for hinge; it works"),
        ("dpo={loss_type: robust, label_smoothing: judge}", "label_smoothing: judge is not defined for robust"),
        ("dpo.loss_type=exo_pair", "exo_pair needs label_smoothing above 0"),
        ("dpo.loss_type=[sigmoid, cpo]", "dpo.loss_type: Input should be 'sigmoid', .*, found 'cpo'"),
        ("sft.micro_batch_tokens=100", "sft: micro_batch_tokens 100 is below max_length 384"),
        ("sft.micro_batch_tokens=many", "sft.micro_batch_tokens: .*valid integer.*; or Input should be 'auto', found"),
        ("sft.mix_in=[{dataset: a, weight: 1, wieght: 2}]", "unknown key 'sft.mix_in.0.wieght'. Did you mean"),
        (
            "dpo.mix_in=[{dataset: a, weight: 1, split: validation}]",
            r"--set: dpo.mix_in.0.split: should be a train split; .*, found 'validation'\. All keys",
        ),
    ],
)
def test_a_wrong_change_names_the_key_and_what_was_meant(change: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe("demo", [change])


def test_a_wrong_key_in_a_file_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("seed: 1\ndpo:\n  beta: 0.1\n  warmup_ratio: 0.1\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml:4: unknown key 'dpo.warmup_ratio'.*warmup_fraction"):
        load_recipe(str(path))


def test_a_wrong_change_of_a_key_that_the_file_has_too_is_not_blamed_on_the_file() -> None:
    with pytest.raises(ConfigError, match=r"^--set: sft\.batch_size: .*found 'abc'"):
        load_recipe("demo", ["sft.batch_size=abc"])


def test_every_old_name_points_at_a_key_that_exists() -> None:
    paths = key_paths(Recipe)
    leaves = {path.rsplit(".", 1)[-1] for path in paths} | set(paths)
    for new in OLD_NAMES.values():
        word = new.split()[0].rstrip(":")
        assert word == "nothing" or word.startswith("--") or word in leaves, new


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"No recipe 'demos'.*demo, mistral-7b"):
        load_recipe("demos")


def test_a_missing_recipe_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml does not exist"):
        load_recipe(str(tmp_path / "none.yaml"))
