"""A checkpoint is whole or not used; the chain of them names every one, and shows what a resume superseded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.common.errors import DataError
from jobs.common.jsonl import sha256_file, write_json
from jobs.train import checkpoints
from jobs.train.chain import ADAPTER, CHAIN, Link, disorder, loss, marked, read_links
from jobs.train.checkpoints import CHECKPOINTS, VERIFY_STEPS, chain, newest_checkpoint, seal_checkpoint


def make_checkpoint(stage: Path, step: int, text: str = "") -> Path:
    """What the trainer writes, before it is sealed."""
    path = stage / CHECKPOINTS / f"checkpoint-{step}"
    (path / "ref").mkdir(parents=True)
    (path / ADAPTER).write_text(f"{step}{text}")
    (path / "ref" / ADAPTER).write_text("r")
    history = [{"step": step, "loss": 1.0, "num_tokens": 100 * step}, {"train_loss": 1.0}]
    write_json(path / "trainer_state.json", {"log_history": history})
    return path


def sealed(stage: Path, *steps: int) -> Path:
    for step in steps:
        seal_checkpoint(make_checkpoint(stage, step))
    return stage / CHECKPOINTS


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint-*"))


def fault(links: list[Link]) -> str | None:
    """What `cai verify` says of a chain; None where it leads from the last link to the start."""
    return loss(links) or disorder(links)


DAMAGES = {
    "missing": lambda folder: (folder / ADAPTER).unlink(),
    "changed": lambda folder: (folder / ADAPTER).write_text("11"),
    "cut off": lambda folder: (folder / "trainer_state.json").write_text("{"),
    "bad manifest": lambda folder: (folder / "manifest.json").write_text("{"),
    "empty manifest": lambda folder: (folder / "manifest.json").write_bytes(b""),
    "nested": lambda folder: (folder / "ref" / ADAPTER).unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_only_a_whole_checkpoint_is_used_and_a_damaged_one_is_kept_aside(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = sealed(tmp_path, 9, 10)
    DAMAGES[damage](folder / "checkpoint-10")

    assert newest_checkpoint(folder) == folder / "checkpoint-9"
    assert (folder / "damaged-checkpoint-10-1").is_dir()
    said = " ".join(capsys.readouterr().err.split())
    assert "checkpoint-10 is damaged" in said
    assert "The checkpoint of step 10 is superseded by the resume from step 9" in said


def test_a_checkpoint_that_was_not_written_to_its_end_is_removed_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = sealed(tmp_path, 9)
    make_checkpoint(tmp_path, 10)

    assert newest_checkpoint(folder) == folder / "checkpoint-9"
    assert names(folder) == ["checkpoint-9"]
    assert "checkpoint-10 was not written to its end; removed" in capsys.readouterr().err


def test_no_checkpoint_means_a_start_from_scratch(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "nothing") is None


def test_two_whole_checkpoints_are_kept_beside_what_is_newer_and_unfinished(tmp_path: Path) -> None:
    folder = sealed(tmp_path, 1, 2)
    make_checkpoint(tmp_path, 4)
    sealed(tmp_path, 3)

    assert names(folder) == ["checkpoint-2", "checkpoint-3", "checkpoint-4"]


def test_a_checkpoint_is_due_at_the_end_and_a_few_steps_before() -> None:
    assert [step for step in range(1, 21) if checkpoints.save_due(step, 20)] == [20 - VERIFY_STEPS, 20]
    assert [step for step in range(1, 3) if checkpoints.save_due(step, 2)] == [2]


def test_every_checkpoint_names_the_one_before_it_by_hash(tmp_path: Path) -> None:
    folder = sealed(tmp_path, 1, 2, 3)

    links = chain(tmp_path)

    assert [link["step"] for link in links] == [1, 2, 3]
    assert [link["previous"] for link in links] == [None, links[0]["sha256"], links[1]["sha256"]]
    assert links[2]["sha256"] == sha256_file(folder / "checkpoint-3" / "manifest.json")
    assert links[2]["adapter_sha256"] == sha256_file(folder / "checkpoint-3" / ADAPTER)
    assert [link["tokens"] for link in links] == [100, 200, 300]
    assert fault(links) is None


def test_the_links_past_a_resume_stay_in_the_chain_and_are_marked(tmp_path: Path) -> None:
    folder = sealed(tmp_path, 1, 2, 3)
    (folder / "checkpoint-3" / ADAPTER).unlink()
    assert newest_checkpoint(folder) == folder / "checkpoint-2"

    sealed(tmp_path, 5)

    links = chain(tmp_path)
    assert [(link["step"], link["superseded"]) for link in links] == [(1, False), (2, False), (3, True), (5, False)]
    assert links[3]["previous"] == links[1]["sha256"]
    assert fault(links) is None


def test_when_every_checkpoint_is_damaged_the_chain_begins_anew(tmp_path: Path) -> None:
    folder = sealed(tmp_path, 1, 2)
    for path in list(folder.iterdir()):
        (path / ADAPTER).unlink()
    assert newest_checkpoint(folder) is None

    sealed(tmp_path, 1)

    links = chain(tmp_path)
    assert [link["superseded"] for link in links] == [True, True, False]
    assert links[2]["previous"] is None


def test_a_kill_between_seal_and_chain_leaves_no_gap(tmp_path: Path) -> None:
    folder = sealed(tmp_path, 1, 2)
    before = chain(tmp_path)
    path = tmp_path / CHAIN
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))

    assert newest_checkpoint(folder) == folder / "checkpoint-2"
    assert chain(tmp_path) == before


def test_a_half_written_last_line_of_the_chain_is_left_out_and_its_link_written_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = sealed(tmp_path, 1, 2, 3)
    before, path = chain(tmp_path), tmp_path / CHAIN
    path.write_bytes(path.read_bytes()[:-20])
    assert marked(read_links(tmp_path)) == marked(
        [{k: v for k, v in link.items() if k != "superseded"} for link in before[:2]]
    )

    assert newest_checkpoint(folder) == folder / "checkpoint-3"
    assert chain(tmp_path) == before
    assert "damaged" not in capsys.readouterr().err


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    lost=st.sets(st.integers(0, 4), min_size=1),
    garbage=st.binary(max_size=20).filter(lambda it: b"\n" not in it) | st.just(b'{"step": 3}') | st.just(b"[1]"),
)
def test_a_damaged_chain_is_named_and_stops_no_training(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str], lost: set[int], garbage: bytes
) -> None:
    stage = tmp_path_factory.mktemp("stage")
    folder = sealed(stage, 1, 2, 3, 4, 5)
    path = stage / CHAIN
    lines = [garbage if i in lost else line for i, line in enumerate(path.read_bytes().splitlines())]
    path.write_bytes(b"\n".join(lines) + b"\n")
    damaged = path.read_bytes()
    with pytest.raises(DataError, match=f"chain.jsonl is damaged: line {min(lost) + 1} is no link"):
        read_links(stage)
    capsys.readouterr()

    assert newest_checkpoint(folder) == folder / "checkpoint-5"

    said = " ".join(capsys.readouterr().err.split())
    assert f"chain.jsonl is damaged (line {min(lost) + 1} is no link" in said
    assert (stage / f"damaged-1-{CHAIN}").read_bytes() == damaged
    whole = {3, 4}  # their checkpoints are kept, and so their links come back
    reached = max(lost - whole, default=-1) + 2  # the first step that the chain still leads back to
    links = chain(stage)
    assert [link["step"] for link in links if not link["superseded"]] == list(range(reached, 6))
    assert (fault(links) is None) == (lost <= whole)
    sealed(stage, 6)
    assert chain(stage)[-1]["previous"] == chain(stage)[-2]["sha256"]


def test_a_chain_damaged_while_a_stage_trains_is_mended_by_the_next_checkpoint_and_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sealed(tmp_path, 1, 2)
    before = chain(tmp_path)
    for step in (3, 4):
        with (tmp_path / CHAIN).open("ab") as file:
            file.write(b"nonsense\n")
        sealed(tmp_path, step)
        assert "chain.jsonl is damaged" in capsys.readouterr().err
    (tmp_path / CHAIN).write_bytes(b"all of it\n")

    links = chain(tmp_path)

    assert len(before) == 2
    assert [link["step"] for link in links] == [3, 4], "those of the checkpoints that are kept"
    assert len(list(tmp_path.glob(f"damaged-*-{CHAIN}"))) == 3


def test_a_second_damage_of_the_chain_keeps_the_first_ones_copy(tmp_path: Path) -> None:
    folder = sealed(tmp_path, 1)
    for content in (b"one\n", b"two\n"):
        (tmp_path / CHAIN).write_bytes(content)
        newest_checkpoint(folder)

    assert [(tmp_path / f"damaged-{number}-{CHAIN}").read_bytes() for number in (1, 2)] == [b"one\n", b"two\n"]
    assert fault(chain(tmp_path)) is None


def test_the_same_steps_written_again_after_damage_give_one_path(tmp_path: Path) -> None:
    folder = sealed(tmp_path, 1, 2, 3)
    for step in (2, 3):
        (folder / f"checkpoint-{step}" / ADAPTER).unlink()
    newest_checkpoint(folder)
    assert names(folder) == []

    sealed(tmp_path, 1, 2, 3)

    links = chain(tmp_path)
    assert [link["step"] for link in links] == [1, 2, 3, 1, 2, 3]
    assert [link["superseded"] for link in links] == [True, True, True, False, False, False]
    assert fault(links) is None


def test_a_link_that_was_changed_breaks_the_chain(tmp_path: Path) -> None:
    sealed(tmp_path, 1, 2, 3)
    links = chain(tmp_path)
    assert fault([links[0], links[2]]) is not None, "a link is missing"
    assert fault([links[0], links[1] | {"sha256": "0" * 64}, links[2]]) is not None
    assert fault([links[0], links[1] | {"tokens": 5000}, links[2]]) is not None


@given(st.lists(st.integers(min_value=0, max_value=5), min_size=1, max_size=12))
def test_after_any_resumes_one_path_leads_from_the_last_link_to_the_start(resumes: Sequence[int]) -> None:
    """Each number says how many links back the next checkpoint goes on from."""
    links: list[dict[str, object]] = []
    path: list[int] = []  # indexes of the links that count
    for number, back in enumerate(resumes):
        path = path[: max(0, len(path) - back)]
        before = links[path[-1]] if path else None
        step = int(str(before["step"])) + 1 if before else 1
        links.append(
            {"step": step, "sha256": f"{number}", "previous": before["sha256"] if before else None, "tokens": step}
        )
        path.append(number)

    found = marked(links)

    assert [i for i, link in enumerate(found) if not link["superseded"]] == path
    assert fault(found) is None


def test_a_kill_while_an_old_checkpoint_is_removed_leaves_nothing_of_it_for_verify(tmp_path: Path) -> None:
    folder = sealed(tmp_path, 1, 2)
    shutil.copytree(folder / "checkpoint-1", tmp_path / "half")
    sealed(tmp_path, 3)
    (tmp_path / "half").rename(folder / "checkpoint-1")
    (folder / "checkpoint-1" / ADAPTER).unlink()

    checkpoints.keep_for_verify(tmp_path)

    assert names(folder) == ["checkpoint-2", "checkpoint-3"]


def test_when_the_stage_is_finished_damaged_checkpoints_go_and_those_of_replaced_outputs(tmp_path: Path) -> None:
    stage, replaced, unfinished = (tmp_path / name for name in ("sft", "sft.replaced-1", "sft.replaced-2"))
    for folder in (stage, replaced, unfinished):
        sealed(folder, 1, 2)
    (replaced / "manifest.json").write_text("{}")
    (stage / CHECKPOINTS / "checkpoint-2").rename(stage / CHECKPOINTS / "damaged-checkpoint-2-1")
    sealed(stage, 2)

    checkpoints.keep_for_verify(stage)

    assert sorted(path.name for path in (stage / CHECKPOINTS).iterdir()) == ["checkpoint-1", "checkpoint-2"]
    assert not (replaced / CHECKPOINTS).exists()
    assert (unfinished / CHECKPOINTS).exists(), "nothing else holds what it had learnt"


def test_chain_jsonl_is_one_json_object_per_line(tmp_path: Path) -> None:
    sealed(tmp_path, 1, 2)
    lines = (tmp_path / CHAIN).read_text().splitlines()
    keys = {"step", "sha256", "previous", "adapter_sha256", "files_sha256", "tokens"}
    assert [set(json.loads(line)) for line in lines] == [keys, keys]
