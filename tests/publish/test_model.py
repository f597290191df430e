"""`cai publish model`: what is put together, what the card says, what is refused, and what the Hub gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.common.fetched import Fetched, FetchedStudent
from jobs.common.jsonl import sha256_file, write_json
from tests.generate.world import error_line
from tests.publish.fake_hub import FakeHub
from tests.publish.finished import RED, Finished, finish_audit, finish_repair, finish_run
from tests.publish.finished_model import ADAPTER, COMMIT, finish_export, finish_training, name_student

TOKEN = "hf-write-0123456789-very-secret"
FILES = {
    "README.md",
    "constitution.yaml",
    *(f"{stage}-{name}" for stage in ("sft", "dpo") for name in ("manifest.json", "curves.png")),
    *(f"{stage}/{name}" for stage in ("sft", "dpo") for name in ADAPTER),
    "generate-manifest.json",
}
MERGED = {"config.json", "model.safetensors", "export-manifest.json"}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Finished:
    monkeypatch.delenv("HF_WRITE_TOKEN", raising=False)
    monkeypatch.delenv("HF_WRITE_TOKEN_FILE", raising=False)
    found = Finished(finish_run(tmp_path).folder, "model")
    with found.recipe.open("a", encoding="utf-8") as file:
        file.write("student: {model: someone/tiny-135m}\n")
        file.write(
            "sft: {mix_in: [{dataset: HuggingFaceH4/ultrachat_200k, weight: 1}, {dataset: a/b.jsonl, weight: 1}]}\n"
        )
    return found


def card(run: Finished) -> tuple[dict[str, Any], str]:
    _, head, text = (run.published / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), text


def names(run: Finished) -> set[str]:
    return {path.relative_to(run.published).as_posix() for path in run.published.rglob("*") if path.is_file()}


def test_a_dry_run_shows_adapters_curves_manifests_and_card(run: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    finish_training(run)
    assert run.publish("--dry-run") == 0
    captured = capsys.readouterr()
    assert {line.split()[0] for line in captured.out.split("\n\n")[0].splitlines()} == FILES == names(run)
    assert "nothing was sent (--dry-run)" in captured.err
    for stage in ("sft", "dpo"):
        source = run.run / stage / "adapter" / "adapter_model.safetensors"
        assert (run.published / stage / source.name).read_bytes() == source.read_bytes()


def test_adapters_alone_name_the_base_that_everybody_can_load(run: Finished) -> None:
    finish_training(run)
    assert run.publish("--dry-run", "--repo", "me/tiny") == 0
    head, text = card(run)
    assert (head["library_name"], head["base_model"]) == ("peft", "someone/tiny-135m")
    assert head["base_model_relation"] == "adapter"
    assert head["license"] == "cc-by-4.0"
    assert head["datasets"] == ["HuggingFaceH4/ultrachat_200k"]
    config = json.loads((run.published / "dpo" / "adapter_config.json").read_text())
    assert config == {"base_model_name_or_path": "someone/tiny-135m", "revision": COMMIT, "r": 16}
    assert 'PeftModel.from_pretrained(base, "me/tiny", subfolder="dpo")' in text
    assert f'from_pretrained("someone/tiny-135m", revision="{COMMIT}"' in text


def test_adapters_over_4_bit_weights_are_loaded_over_4_bit_weights(run: Finished) -> None:
    text = run.recipe.read_text(encoding="utf-8")
    run.recipe.write_text(text.replace("sft: {", "sft: {quantization: nf4, "), encoding="utf-8")  # and so for dpo
    finish_training(run)
    assert run.publish("--dry-run", "--repo", "me/tiny") == 0
    code = card(run)[1].split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert 'dtype="auto", quantization_config=four_bit)' in code
    assert 'bnb_4bit_compute_dtype="bfloat16"' in code


def test_with_an_export_the_merged_model_is_at_the_top(run: Finished) -> None:
    finish_training(run)
    finish_export(run)
    assert run.publish("--dry-run") == 0
    head, text = card(run)
    assert names(run) == FILES | MERGED
    assert (head["library_name"], head["base_model_relation"]) == ("transformers", "finetune")
    assert 'AutoModelForCausalLM.from_pretrained("OWNER/NAME", dtype="auto")' in text
    for line in (
        "| adapter | dpo, merged in fp32 and rounded once to bfloat16 |",
        "| KL to the model as it was trained | 8.5e-05 nats per token, over 2,048 tokens; at most 0.001 was allowed |",
        "| the same, merged into the base as it was before quantization | 0.025 |",
        "| greedy answers that stay the same | 6 of 8 |",
    ):
        assert line in text


def test_the_card_has_the_figures_of_the_manifests(run: Finished) -> None:
    finish_training(run)
    finish_audit(run, [RED], stopped=False)
    assert run.publish("--dry-run") == 0
    text = card(run)[1]
    for line in (
        "| rows | 8, 2 of them mixed in | 8, 2 of them mixed in |",
        "| training loss, first → last step | 2.5000 → 1.2500 | 2.5000 → 1.2500 |",
        "| held-out loss, before → after | 2.7500 → 1.5000 | not measured |",
        "| loss | next token, answers only | sigmoid |",
        "| trained values | 4,884,480 | 4,884,480 |",
        "| frozen weights | bfloat16 | bfloat16 |",
        "| chosen is preferred | 75.0 % |",
        "| reward margin (0 before) | 0.1250 |",
        "| log-probability of chosen | -40.00 → -42.50 (-2.50) |",
        "| log-probability of rejected | -50.00 → -55.00 (-5.00) |",
        "| thrift | 25.0 % | 0.5000 |",
        "| rows | stage `generate`, written by `fake-teacher` |",
        "- 4 held-out pairs: too few for a share to mean much.",
        "| the longer one is chosen, without a model | 80.0 % |",
        "- Likelihood displacement: in DPO the chosen held-out answers lost 0.050 nats per token",
        "- The data it was trained on fails a quality gate: chosen is longer in 98.6 % of 220 pairs.",
        "- No judge has compared its answers",
        "![dpo-curves.png](dpo-curves.png)",
    ):
        assert line in text
    for stage in ("generate", "sft", "dpo"):
        assert sha256_file(run.run / stage / "manifest.json") in text
    assert sha256_file(run.run / "sft" / "adapter" / "adapter_model.safetensors") in text
    assert run.context.constitution().sha256 in text
    assert text.index("sft-curves.png") < text.index("dpo-curves.png")


def test_the_model_that_comes_with_us_is_named_by_its_hub_id_and_its_gguf(tmp_path: Path) -> None:
    run = Finished(finish_run(tmp_path).folder, "model")
    finish_training(run)
    student = FetchedStudent(kind="gguf", path="x.gguf", name="smollm2-135m-instruct")
    write_json(run.run / "fetch" / "models.json", Fetched(student=student).model_dump(mode="json"))
    assert run.publish("--dry-run") == 0
    head, text = card(run)
    assert head["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert "(its GGUF, dequantised)" in text
    assert "- The adapters were trained on a quantised GGUF of the base" in text


def test_rows_that_were_published_are_named(run: Finished) -> None:
    finish_training(run)
    path = run.run / "publish" / "data.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"published": [{"repo": "me/tiny-data"}]}))
    assert run.publish("--dry-run") == 0
    head, text = card(run)
    assert head["datasets"] == ["me/tiny-data", "HuggingFaceH4/ultrachat_200k"]
    assert "published as `me/tiny-data`" in text


def test_a_base_in_a_folder_of_ones_own_is_not_named_as_the_hubs(run: Finished) -> None:
    finish_training(run)
    name_student(run, None)
    assert run.publish("--dry-run") == 0
    assert "base_model" not in card(run)[0]
    config = json.loads((run.published / "sft" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny-135m"


@pytest.mark.parametrize("stage", ["sft", "dpo", "export"])
def test_an_unfinished_stage_publishes_nothing(stage: str, run: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    finish_training(run)
    finish_export(run)
    (run.run / stage / "manifest.json").unlink()
    assert run.publish("--dry-run") == 78
    line = error_line(capsys)
    assert f'No finished "{stage}" stage' in line
    assert f"Run: cai {stage} --run tiny" in line
    assert not run.published.exists()


def test_a_changed_adapter_is_refused(run: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    finish_training(run)
    (run.run / "dpo" / "adapter" / "adapter_model.safetensors").write_text("other")
    assert run.publish("--dry-run") == 65
    assert "adapter_model.safetensors changed since dpo finished. Run: cai dpo" in error_line(capsys)


def test_a_model_of_other_rows_is_refused(run: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    finish_training(run)
    manifest = run.run / "sft" / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    assert run.publish("--dry-run") == 78
    assert "was made of an earlier sft. Run: cai dpo" in error_line(capsys)


def test_rows_repaired_after_training_are_refused(run: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    finish_training(run)
    finish_repair(run)
    assert run.publish("--dry-run") == 78
    assert "was trained before repair finished, on other rows. Run: cai sft" in error_line(capsys)


def test_another_constitution_is_refused(run: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    finish_training(run)
    file = run.folder / "tiny.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("every line", "each line"), encoding="utf-8")
    assert run.publish("--dry-run") == 78
    assert "made with another constitution" in error_line(capsys)


def test_no_published_text_names_this_machine(run: Finished) -> None:
    finish_training(run)
    finish_export(run)
    assert run.publish("--dry-run") == 0
    for path in run.published.rglob("*"):
        if path.suffix in {".md", ".json"}:
            text = path.read_text(encoding="utf-8")
            assert str(run.folder) not in text
            assert "10.1.2.3" not in text


def test_everything_goes_to_a_model_repository_in_one_commit(run: Finished) -> None:
    finish_training(run)
    finish_export(run)
    with FakeHub(TOKEN) as hub:
        done = run.start("--repo", "me/tiny", "--private", HF_ENDPOINT=hub.url, HF_WRITE_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert f"in one commit: {hub.url}/me/tiny/commit/" in done.stderr
    assert (hub.kinds["me/tiny"], hub.private["me/tiny"], len(hub.commits)) == ("model", True, 1)
    assert set(hub.repos["me/tiny"]) == FILES | MERGED
    for name, data in hub.repos["me/tiny"].items():
        assert data == (run.published / name).read_bytes()
    assert TOKEN not in done.stdout + done.stderr
    published = json.loads((run.run / "publish" / "model.json").read_text())["published"]
    assert published[0]["repo"] == "me/tiny"


def test_a_refused_token_is_told_for_models(run: Finished) -> None:
    finish_training(run)
    with FakeHub(TOKEN, {"create": 403}) as hub:
        done = run.start("--repo", "me/tiny", HF_ENDPOINT=hub.url, HF_WRITE_TOKEN=TOKEN)
    assert done.returncode == 78
    assert "may write to me's models in HF_WRITE_TOKEN" in done.stderr
