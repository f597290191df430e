"""`cai publish data`: what is put together, what is refused, and what the Hub gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.generate.world import error_line
from tests.publish.fake_hub import FakeHub
from tests.publish.finished import (
    GREEN,
    RED,
    ROWS,
    Finished,
    finish_audit,
    finish_generate,
    finish_repair,
    finish_run,
)

TOKEN = "hf-write-0123456789-very-secret"
FILES = {"README.md", "constitution.yaml", "manifest.json", *(f"data/{name}.parquet" for name in ROWS)}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Finished:
    monkeypatch.delenv("HF_WRITE_TOKEN", raising=False)
    monkeypatch.delenv("HF_WRITE_TOKEN_FILE", raising=False)
    return finish_run(tmp_path)


def card(run: Finished) -> tuple[dict[str, object], str]:
    _, head, text = (run.published / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(head), text


def test_a_dry_run_lists_every_file_with_size_and_hash_and_shows_the_card(
    run: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    finish_audit(run, [GREEN])
    assert run.publish("--dry-run") == 0
    captured = capsys.readouterr()
    listed = {line.split()[0]: line.split()[1:] for line in captured.out.split("\n\n")[0].splitlines()}
    assert set(listed) == FILES
    assert all(len(digest) == 64 and int(size.replace(",", "")) > 0 for size, digest in listed.values())
    assert "license: cc-by-4.0" in captured.out
    assert "nothing was sent (--dry-run)" in captured.err


def test_the_card_has_gates_shortcuts_provenance_and_splits(run: Finished) -> None:
    finish_audit(run, [GREEN])
    assert run.publish("--dry-run") == 0
    head, text = card(run)
    assert head["license"] == "cc-by-4.0"
    assert head["language"] == ["en"]
    assert head["size_categories"] == ["n<1K"]
    assert head["pretty_name"] == 'Tiny: a "test"'
    for line in (
        "| leaks | green | 0 | at most 0 | no prompt is in two splits |",
        '| pairs that "longer is chosen" gets right | 75.0 % of 4 (30.1 to 95.4) |',
        "| pairs that a classifier gets right without seeing the prompt | 75.0 % of 4 (30.1 to 95.4) |",
        "| mean words of chosen and rejected | 80 and 60 (ratio 1.33) |",
        "| most frequent opening | 25.0 % (I \\| cannot &lt;help>) |",
        "| principles with training rows | 1 of 2 |",
        "| judge: both orders agree | 75.0 % of 8 (6 first, 2 flipped, 1 unreadable) |",
        "| dropped | 2 meta_talk, 1 unchanged |",
        "| used | 12,345 tokens in, 6,789 out, cost $0.12 |",
        "| prompts, critiques, revisions | `fake-teacher` at api.example.org |",
        "| judge | `fake-judge`, blind, rule `both_orders` |",
        "| wording of the requests | version 7 |",
        "| `prefs` | train | 4 | `data/train_prefs.parquet` |",
    ):
        assert line in text
    assert run.context.constitution().sha256 in text
    assert "> **" not in text


def test_every_configuration_of_the_card_loads(run: Finished) -> None:
    import datasets

    assert run.publish("--dry-run") == 0
    for config in yaml.safe_load((run.published / "README.md").read_text(encoding="utf-8").split("---\n")[1])[
        "configs"
    ]:
        files = {one["split"]: str(run.published / one["path"]) for one in config["data_files"]}
        loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(run.folder / "cache"))
        name = config["config_name"]
        assert (len(loaded["train"]), len(loaded["test"])) == (ROWS[f"train_{name}"], ROWS[f"test_{name}"])


def test_rows_without_a_report_say_so_at_the_top(run: Finished) -> None:
    assert run.publish("--dry-run") == 0
    assert card(run)[1].lstrip().startswith("> **Not audited.**")


def test_a_red_gate_publishes_nothing(run: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    finish_audit(run, [GREEN, RED], stopped=True)
    assert run.publish("--dry-run") == 65
    line = error_line(capsys)
    assert "these gates fail: length_only. Nothing is published." in line
    assert "cai repair" in line
    assert not run.published.exists()


def test_a_red_gate_of_a_run_that_only_reports_stands_at_the_top_of_the_card(tmp_path: Path) -> None:
    run = finish_run(tmp_path, on_failure="report")
    finish_audit(run, [GREEN, RED])
    assert run.publish("--dry-run") == 0
    text = card(run)[1].lstrip()
    assert text.startswith("> **1 of 2 quality gates fails**")
    assert text.splitlines()[1] == "> - chosen is longer in 98.6 % of 220 pairs"


def test_a_report_on_other_rows_is_refused(run: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    finish_audit(run, [GREEN])
    finish_repair(run)
    assert run.publish("--dry-run") == 78
    assert "is the report on other rows than repair's" in error_line(capsys)


def test_repaired_rows_are_published_with_both_manifests(run: Finished) -> None:
    finish_repair(run)
    finish_audit(run, [GREEN], of="repair")
    assert run.publish("--dry-run") == 0
    assert json.loads((run.published / "manifest.json").read_text())["stage"] == "repair"
    assert json.loads((run.published / "generate-manifest.json").read_text())["stage"] == "generate"
    text = card(run)[1]
    assert "| dropped | 1 unrepaired |" in text
    assert "| used | 13,000 tokens in, 7,000 out, cost $0.22 |" in text
    assert "`fake-teacher` at api.example.org" in text


def test_the_card_names_the_judge_of_the_repaired_rows(run: Finished) -> None:
    finish_repair(run, judge="other-judge", judge_rule="mean", verdicts={"first": 5})
    finish_audit(run, [GREEN], of="repair")
    assert run.publish("--dry-run") == 0
    text = card(run)[1]
    assert "| judge | `other-judge`, blind, rule `mean` |" in text
    assert "| judge: both orders agree | 100.0 % of 5 (5 first) |" in text


def test_tables_without_a_row_are_not_published(run: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    finish_repair(run, dict.fromkeys(ROWS, 0))
    finish_audit(run, [GREEN], of="repair")
    assert run.publish("--dry-run") == 65
    assert "its tables have no rows, so there is nothing to publish" in error_line(capsys)
    assert not run.published.exists()


def test_a_changed_table_is_refused(run: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    (run.run / "generate" / "data" / "train_sft.parquet").write_bytes(b"other")
    assert run.publish("--dry-run") == 65
    assert "train_sft.parquet changed since generate finished" in error_line(capsys)


def test_rows_that_were_imported_are_not_published(run: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    path = run.run / "generate" / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(manifest | {"outputs": {}}), encoding="utf-8")
    assert run.publish("--dry-run") == 65
    assert "an import writes none. Only generated rows are published" in error_line(capsys)


def test_another_constitution_is_refused(run: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    file = run.folder / "tiny.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("every line", "each line"), encoding="utf-8")
    assert run.publish("--dry-run") == 78
    assert "made with another constitution" in error_line(capsys)


def test_no_published_text_names_this_machine(run: Finished) -> None:
    finish_audit(run, [GREEN])
    assert run.publish("--dry-run") == 0
    for name in ("README.md", "manifest.json"):
        text = (run.published / name).read_text(encoding="utf-8")
        assert str(run.folder) not in text
        assert "10.1.2.3" not in text
        assert "token=abc" not in text
    assert json.loads((run.published / "manifest.json").read_text())["recipe"]["constitution"] == "tiny.yaml"


def test_a_server_in_a_private_network_is_not_named(tmp_path: Path) -> None:
    run = finish_run(tmp_path)
    (run.run / "generate" / "manifest.json").unlink()
    finish_generate(run, teacher_endpoint="gpu7.lab.internal:8000")
    assert run.publish("--dry-run") == 0
    text = card(run)[1]
    assert "gpu7" not in text
    assert "`fake-teacher` at a server in a private network" in text


def test_without_a_token_everything_is_put_together_and_the_variable_is_named(
    run: Finished, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf-read-token")
    assert run.publish("--repo", "me/tiny") == 78
    line = error_line(capsys)
    assert "HF_WRITE_TOKEN" in line
    assert "nothing was sent" in line
    assert {path.relative_to(run.published).as_posix() for path in run.published.rglob("*.*")} == FILES


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--repo", "tiny"], "--repo: found 'tiny'. Expected OWNER/NAME."),
        (["--repo", "me/tiny/x"], "Expected OWNER/NAME."),
        (["--licence", "CC BY 4.0"], "--licence: found 'CC BY 4.0'"),
        ([], "--repo is missing"),
    ],
)
def test_a_wrong_name_is_told_before_anything_is_sent(
    arguments: list[str], said: str, run: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.publish(*arguments) == 78
    assert said in error_line(capsys)


def test_a_token_file_that_cannot_be_read_is_named(
    run: Finished, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_WRITE_TOKEN_FILE", str(run.folder / "none"))
    assert run.publish("--repo", "me/tiny") == 78
    assert "HF_WRITE_TOKEN_FILE: cannot read" in error_line(capsys)


def test_everything_goes_to_the_hub_in_one_commit_and_the_token_shows_nowhere(run: Finished) -> None:
    finish_audit(run, [GREEN])
    secret = run.folder / "token"
    secret.write_text(TOKEN + "\n", encoding="utf-8")
    with FakeHub(TOKEN) as hub:
        done = run.start("--repo", "me/tiny", HF_ENDPOINT=hub.url, HF_WRITE_TOKEN_FILE=str(secret), HF_TOKEN="hf-read")
    assert done.returncode == 0, done.stderr
    assert f"7 files of generate in one commit: {hub.url}/datasets/me/tiny/commit/" in done.stderr
    assert len(hub.commits) == 1
    assert set(hub.repos["me/tiny"]) == FILES
    for name, data in hub.repos["me/tiny"].items():
        assert data == (run.published / name).read_bytes()
    assert {authorization for _, path, authorization in hub.history if "/datasets/" in path} == {f"Bearer {TOKEN}"}
    assert TOKEN not in done.stdout + done.stderr
    written = [path for path in run.folder.rglob("*") if path.is_file() and path != secret]
    assert [path for path in written if TOKEN.encode() in path.read_bytes()] == []
    published = json.loads((run.run / "publish" / "data.json").read_text())["published"]
    assert (published[0]["repo"], set(published[0]["files"])) == ("me/tiny", FILES)


def test_a_second_push_goes_to_the_same_repository(run: Finished) -> None:
    with FakeHub(TOKEN) as hub:
        for _ in range(2):
            assert run.start("--repo", "me/tiny", HF_ENDPOINT=hub.url, HF_WRITE_TOKEN=TOKEN).returncode == 0
        assert len(hub.commits) == 2


@pytest.mark.parametrize(
    ("refuse", "code", "said"),
    [
        ({"create": 401}, 78, "me/tiny: the Hub refuses the token (401)."),
        ({"commit": 403}, 78, "me/tiny: the Hub refuses the token (403)."),
        ({"commit": 413}, 65, "me/tiny: the Hub refuses the upload (413)."),
        ({"commit": 500}, 69, "me/tiny: the Hub answers 500."),
    ],
    ids=["401", "403", "413", "500"],
)
def test_a_refusal_of_the_hub_is_one_line(refuse: dict[str, int], code: int, said: str, run: Finished) -> None:
    with FakeHub(TOKEN, refuse) as hub:
        done = run.start("--repo", "me/tiny", HF_ENDPOINT=hub.url, HF_WRITE_TOKEN=TOKEN)
    assert done.returncode == code, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert said in errors[0]
    assert "Traceback" not in done.stderr
    assert TOKEN not in done.stdout + done.stderr


def test_a_hub_that_is_not_there_is_unavailable(run: Finished) -> None:
    done = run.start("--repo", "me/tiny", HF_ENDPOINT="http://127.0.0.1:9", HF_WRITE_TOKEN=TOKEN)
    assert done.returncode == 69, done.stderr
    assert "the Hub does not answer" in done.stderr


def test_private_makes_a_private_repository_and_refuses_a_public_one(run: Finished) -> None:
    with FakeHub(TOKEN) as hub:
        hub.repos["me/open"], hub.private["me/open"] = {}, False
        refused = run.start("--repo", "me/open", "--private", HF_ENDPOINT=hub.url, HF_WRITE_TOKEN=TOKEN)
        made = run.start("--repo", "me/closed", "--private", HF_ENDPOINT=hub.url, HF_WRITE_TOKEN=TOKEN)
    assert refused.returncode == 78
    assert "me/open exists and is public" in refused.stderr
    assert hub.repos["me/open"] == {}
    assert made.returncode == 0, made.stderr
    assert hub.private["me/closed"]
