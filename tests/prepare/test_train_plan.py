"""`cai plan`, the training half: of the shipped recipes, of a finished data stage and of a fetched student."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.__main__ import main
from jobs.common.errors import DataError
from jobs.common.fitting import usable_bytes
from jobs.common.gpus import GPUS, Gpu
from jobs.common.memory import GIB, peak_bytes
from jobs.common.model_shape import KNOWN
from jobs.common.recipe import PROJECT, load_recipe
from jobs.common.settings import DpoSettings, SftSettings
from jobs.common.stage import RunContext
from jobs.prepare.train_plan import SECTIONS, find_shape
from jobs.prepare.train_plan_cost import Forecast, Stage, forecast, smallest
from jobs.prepare.train_plan_rows import Length, Rows, rows_of
from jobs.prepare.train_plan_table import Offer, dollars, offers_of
from tests.train.builders import finish_fetch, finish_generate, make_context, pair, sft_example

SIXTEEN = next(gpu for gpu in GPUS if gpu.name == "RTX-4060-Ti-16GB")
H100 = next(gpu for gpu in GPUS if gpu.name == "H100")
MISTRAL = KNOWN["mistralai/Mistral-7B-Instruct-v0.3"]


def training(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """Lines of the training half."""
    code = main(["plan", *arguments])
    found = capsys.readouterr()
    assert code == 0, found.err
    lines = found.out.splitlines()
    return lines[next(at for at, line in enumerate(lines) if line.startswith("training")) :]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAI_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def rows(lengths: Sequence[Length], most: int = 2048, mixed: int = 0) -> Rows:
    return Rows(list(lengths), mixed, [], "generate", most)


@pytest.mark.parametrize("recipe", ["demo", "romania-smoke", "smollm2-135m", "smollm2-1.7b", "mistral-7b"])
def test_every_recipe_has_a_plan_before_any_download(
    recipe: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = training(capsys, "--recipe", recipe)
    assert max(map(len, lines)) <= 110
    named = {line.split()[0]: line for line in lines if line}
    assert set(named) >= {gpu.name for gpu in GPUS}
    assert named["T4"].endswith("refused: no bf16 (older than Ampere)")
    assert any(line.startswith("cheapest that fits: ") for line in lines)
    assert not any("?" in line for line in lines)
    assert not runs.exists()


CARDS = {"a 16 GB card": "RTX-4060-Ti-16GB", "an RTX A5000": "RTX-A5000", "an H100": "H100"}


@pytest.mark.parametrize(
    "recipe", sorted(path.stem for path in (PROJECT / "recipes").glob("*.yaml") if "api" in path.read_text())
)
def test_the_figures_at_the_head_of_a_recipe_are_the_plans(recipe: str, tmp_path: Path) -> None:
    head = " ".join((PROJECT / "recipes" / f"{recipe}.yaml").read_text().split("\nconstitution")[0].split("\n# "))
    said = re.findall(r"(?:(\d+) GiB and )?(\d+) (minutes|hours) (?:of training )?on (an? [\w ]+?)[,;]", head)
    assert len(said) == len(re.findall(r"\d (?:minutes|hours)", head)) > 0
    assert sum(bool(gib) for gib, *_ in said) == head.count("GiB")
    context = RunContext(recipe=load_recipe(recipe), run="r", runs=tmp_path)
    shape = KNOWN[context.recipe.student.model]
    settings = {"sft": context.recipe.sft, "dpo": context.recipe.dpo}
    stages = [Stage(it, settings[it], rows_of(context, it), shape, context.recipe.sft.lora.rank) for it in SECTIONS]
    offers = {offer.gpu.name: offer for offer in offers_of(stages, GPUS)}
    for gib, time, unit, card in said:
        offer = offers[CARDS[card]]
        assert offer.seconds
        assert round(offer.seconds / {"minutes": 60, "hours": 3600}[unit]) == int(time), card
        peaks = [found.peak.total / GIB for found in offer.forecasts if found]
        assert not gib or round(max(peaks)) == int(gib), card


def test_the_shipped_7b_recipe_fits_16_gb_and_says_where_4_bits_are_not_needed(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = ["--set", "sft.max_length=2048", "--set", "dpo.max_length=2048"]
    lines = training(capsys, "--recipe", "mistral-7b", *sets)
    row = next(line for line in lines if line.startswith(SIXTEEN.name))
    assert "needs" not in row
    assert any(re.match(r"quantization: none is faster where it fits: .*H100", line) for line in lines)


def test_what_does_not_fit_names_the_gpu_it_needs_and_the_weights_that_would(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = ["--set", "sft.quantization=none", "--set", "dpo.quantization=none"]
    lines = training(capsys, "--recipe", "mistral-7b", *sets)
    row = next(line for line in lines if line.startswith(SIXTEEN.name))
    needed = float(re.findall(r"needs (\d+\.\d) GiB", row)[0])
    assert 15.6 < needed < 20
    assert f"quantization: nf4 would fit {SIXTEEN.name} too" in lines


def test_prices_on_the_command_line_decide_what_is_cheapest(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = training(capsys, "--recipe", "smollm2-1.7b", "--gpu-price", "H200=0.001")
    assert next(line for line in lines if line.startswith("cheapest")).startswith("cheapest that fits: H200, ")


def test_a_wrong_price_is_one_line_before_anything_is_printed(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--gpu-price", "h101=2"]) == 78
    found = capsys.readouterr()
    assert found.out == ""
    assert len(found.err.strip().splitlines()) == 1


def test_an_unknown_student_says_how_its_shape_becomes_known(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = ["--set", "student.model=someone/else"]
    [line] = training(capsys, "--recipe", "smollm2-135m", *sets)
    assert "the shape of someone/else is not known before its config.json is here" in line
    assert "Run: cai fetch --run smollm2-135m --recipe smollm2-135m --set student.model=someone/else" in line


def config(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 300,
    }
    (folder / "config.json").write_text(json.dumps(sizes | changes), encoding="utf-8")
    return folder


def test_a_fetched_students_own_config_counts(tmp_path: Path) -> None:
    context = make_context(tmp_path / "runs", student={"model": "someone/tiny"})
    assert find_shape(context) is None
    finish_fetch(context, config(tmp_path / "tiny"))
    shape = find_shape(context)
    assert shape
    assert (shape.hidden, shape.layers, shape.vocab) == (64, 2, 300)
    other = make_context(tmp_path / "runs", student={"model": "someone/other"})
    assert find_shape(other) is None  # what lies there is another student


def test_a_students_folder_needs_no_fetch_and_a_damaged_config_is_named(tmp_path: Path) -> None:
    folder = config(tmp_path / "mine", hidden_size="big")
    context = make_context(tmp_path / "runs", student={"model": str(folder)})
    with pytest.raises(DataError, match=rf"{folder}.*hidden_size.*'big'"):
        find_shape(context)
    config(folder)
    assert find_shape(context)


def test_rows_come_from_the_finished_data_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    context = make_context(tmp_path / "runs")
    assumed = rows_of(context, "sft")
    assert assumed
    assert assumed.measured == ""
    finish_fetch(context, config(tmp_path / "tiny"))
    text = "word " * 100
    finish_generate(
        context,
        {
            "sft": [sft_example(f"{number} why?", text) for number in range(5)],
            "pairs": [pair(f"{number} how?", text, "no") for number in range(4)],
            "held_out_pairs": [pair(f"{number} when?", text, "no") for number in range(3)],
        },
    )
    sft, dpo = rows_of(context, "sft"), rows_of(context, "dpo")
    assert sft
    assert dpo
    assert (sft.measured, len(sft.lengths), len(dpo.lengths), len(dpo.held_out)) == ("generate", 5, 4, 3)
    assert sft.mean == pytest.approx(100, rel=0.2)
    chosen, rejected = dpo.lengths[0].answers
    assert chosen > 20 * rejected


def test_a_stage_without_rows_is_left_out(tmp_path: Path) -> None:
    context = make_context(tmp_path / "runs")
    finish_fetch(context, config(tmp_path / "tiny"))
    finish_generate(context, {"sft": [sft_example("why?", "so")]})
    assert rows_of(context, "dpo") is None


def test_rows_assumed_follow_the_recipes_counts(tmp_path: Path) -> None:
    recipe = load_recipe(
        "smollm2-135m", ["generate.benign_twins=false", "generate.sft_fraction=0.25", "generate.held_out_fraction=0.2"]
    )
    context = RunContext(recipe=recipe, run="r", runs=tmp_path)
    prompts = recipe.generate.prompts_per_principle * len(context.constitution().principles)
    sft, dpo = rows_of(context, "sft"), rows_of(context, "dpo")
    assert sft
    assert dpo
    assert len(sft.lengths) == round(prompts * 0.8 * 0.25)
    assert len(dpo.lengths) == round(prompts * 0.8 * 0.75)


def test_mixed_in_rows_are_counted_by_their_weight(tmp_path: Path) -> None:
    recipe = load_recipe("smollm2-135m", ["sft.mix_in=[{dataset: some/where, weight: 2.0}]"])
    found = rows_of(RunContext(recipe=recipe, run="r", runs=tmp_path), "sft")
    assert found
    assert found.mixed == 2 * (len(found.lengths) - found.mixed)
    assert found.most == recipe.sft.max_length


@given(
    batch=st.integers(1, 64),
    answers=st.lists(st.integers(1, 4000), min_size=1, max_size=50),
    memory_gib=st.floats(6, 150),
    quantization=st.sampled_from(["none", "nf4"]),
)
def test_a_forecast_fits_its_gpu_and_holds_every_row(
    batch: int, answers: list[int], memory_gib: float, quantization: str
) -> None:
    settings = SftSettings.model_validate({"batch_size": batch, "max_length": 2048, "quantization": quantization})
    lengths = [Length(50, (answer,)).cut(2048) for answer in answers]
    stage = Stage("sft", settings, rows(lengths), MISTRAL, 16)
    gpu = Gpu("X", "X", memory_gib * GIB, 1e14, 1.0)
    found = forecast(stage, gpu)
    if found is None:
        assert peak_bytes(stage.load(2048)).total > usable_bytes(gpu.memory_bytes, "cuda")
        return
    assert found.peak.total <= usable_bytes(gpu.memory_bytes, "cuda")
    assert found.tokens >= max(length.positions for length in lengths)
    assert found.passes >= 1
    assert found.seconds
    assert found.seconds > 60


def test_a_long_stage_is_planned_with_compiled_layers_and_a_short_one_without() -> None:
    def planned(count: int, peak: float | None = 1e14) -> Forecast:
        stage = Stage("sft", SftSettings(batch_size=64), rows([Length(50, (400,))] * count), MISTRAL, 16)
        found = forecast(stage, Gpu("X", "X", 24 * GIB, peak, 1.0))
        assert found
        assert found.load.compiled is found.compiled
        return found

    short, long = planned(64), planned(64_000)
    assert (short.compiled, long.compiled) == (False, True)
    assert short.tokens < long.tokens, "compiled layers keep less"
    assert not planned(64_000, peak=None).compiled


def test_the_plan_says_which_layers_it_takes_to_be_compiled(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def layers(*sets: str) -> str:
        lines = training(capsys, "--recipe", "smollm2-1.7b", *sets)
        said = " ".join(line.strip() for line in lines)
        found = re.search(r"layers: compiled where .* as the trainer decides it: (.*?) minutes:", said)
        assert found
        return found[1]

    assert layers("--set", "sft.epochs=0.01", "--set", "dpo.epochs=1000") == "sft on none; dpo on all"
    some = layers("--set", "sft.epochs=6", "--set", "dpo.epochs=0.01")
    assert re.match(r"sft on (?!all;|none;).*; dpo on none", some)


def test_what_a_stage_needs_keeps_to_what_the_recipe_fixes() -> None:
    lengths = [Length(50, (400,))] * 64

    def needed(**changes: Any) -> float:
        settings = SftSettings.model_validate(changes)
        return peak_bytes(smallest(Stage("sft", settings, rows(lengths), MISTRAL, 16))).total

    assert needed() == needed(gradient_checkpointing=True)
    assert needed() < needed(gradient_checkpointing=False)
    assert needed() < needed(micro_batch_tokens=16_000)


def test_what_the_recipe_fixes_is_kept() -> None:
    lengths = [Length(50, (400,))] * 64
    settings = SftSettings.model_validate({"micro_batch_tokens": 3000, "gradient_checkpointing": True})
    found = forecast(Stage("sft", settings, rows(lengths), MISTRAL, 16), H100)
    assert found
    assert (found.tokens, found.checkpointing) == (3000, True)
    assert found.passes == 3  # sixteen rows of 450, six to a pass


def test_more_steps_take_longer_and_checkpointing_costs_time() -> None:
    lengths = [Length(50, (400,))] * 64

    def seconds(**changes: Any) -> float:
        settings = DpoSettings.model_validate({"batch_size": 8, "epochs": 1} | changes)
        found = forecast(Stage("dpo", settings, rows(lengths), MISTRAL, 16), H100)
        assert found
        assert found.seconds
        return found.seconds

    assert seconds() < seconds(epochs=2) == seconds(max_steps=16)
    assert seconds() < seconds(gradient_checkpointing=True)


def test_a_step_smaller_than_a_pass_is_what_fills_memory() -> None:
    stage = Stage("sft", SftSettings(batch_size=2), rows([Length(50, (50,))] * 8, most=100), MISTRAL, 16)
    found = forecast(stage, H100)
    assert found
    assert found.tokens > 1024
    assert found.load.micro_batch_tokens == 200


def test_fp32_has_no_known_speed_on_a_gpu_and_no_price() -> None:
    stage = Stage("sft", SftSettings(precision="fp32"), rows([Length(5, (5,))]), KNOWN["embedded"], 16)
    found = forecast(stage, H100)
    assert found
    assert found.seconds is None
    assert Offer(H100, (found,)).usd is None


def test_a_cost_that_is_not_zero_never_looks_like_it() -> None:
    assert dollars(0.0) == "0.00"
    assert dollars(0.0001) == "<0.01"
    assert dollars(0.005) == "0.01"
