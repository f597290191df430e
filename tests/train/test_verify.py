"""`cai verify` trains the last steps again and finds what is not as it was; it never writes into the run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.__main__ import main
from jobs.common.errors import ConfigError, DataError, StoppedError
from jobs.common.jsonl import sha256_file, write_json
from jobs.common.stage import RunContext
from jobs.train import dpo, sft, shares, verify
from jobs.train.chain import CHAIN
from jobs.train.checkpoints import CHECKPOINTS, VERIFY_STEPS, kept_checkpoints, step_of
from tests.train.stopped import adapter_sha256, copy_run, stop_after

Runs = Callable[..., RunContext]
STEPS = VERIFY_STEPS + 2


def state_of(folder: Path) -> dict[str, tuple[str, int]]:
    """Hash and time of every file."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): (sha256_file(path), path.stat().st_mtime_ns) for path in files}


@pytest.fixture
def finished(tiny_run: Runs) -> RunContext:
    """A run whose sft has finished."""
    lora = {"rank": 4, "alpha": 8, "dropout": 0.1}
    context = tiny_run(sft={"max_steps": STEPS, "lora": lora}, dpo={"max_steps": STEPS})
    sft.run(context)
    return context


def test_the_last_steps_of_both_trainers_are_trained_again_to_the_bit_and_nothing_is_written(
    finished: RunContext, capsys: pytest.CaptureFixture[str]
) -> None:
    dpo.run(finished)
    before = state_of(finished.folder)
    capsys.readouterr()

    for stage in ("sft", "dpo"):
        code = main(["verify", finished.run, "--stage", stage, "--runs", str(finished.runs)])

        captured = capsys.readouterr()
        assert code == 0, captured.err
        assert f"{finished.run}/{stage}: steps 3 to {STEPS}, trained again from checkpoint-2" in captured.out
        lines = [line.split() for line in captured.out.splitlines()[1:]]
        assert {line[0] for line in lines} == {"equal"}
        steps = [line for line in lines if line[1] == "step"]
        assert [int(line[2]) for line in steps] == [3, 4, 5, 6]
        assert all(name in steps[0] for name in ("loss", "num_tokens", "rows"))
        assert "made elsewhere" not in captured.err
    assert state_of(finished.folder) == before
    assert not list(finished.runs.glob(".verify-*"))


def test_over_4_bit_weights_the_last_steps_are_the_same_bits_too(
    tiny_run: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    four_bit = {"max_steps": VERIFY_STEPS + 1, "quantization": "nf4"}
    context = tiny_run(sft=four_bit, dpo=four_bit)
    for stage in (sft, dpo):
        stage.run(context)
        verify.run(context, stage.SECTION)
    assert "DIFFERS" not in capsys.readouterr().out


def test_the_checkpoints_kept_are_the_last_and_the_one_a_few_steps_before(finished: RunContext) -> None:
    kept = kept_checkpoints(finished.folder / "sft")
    assert [step_of(path) for path in kept] == [STEPS, STEPS - VERIFY_STEPS]


def test_another_order_of_rows_is_found_at_its_first_step(
    finished: RunContext, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shares, "epoch_order", lambda rows, seed, epoch: list(range(rows)))

    with pytest.raises(DataError, match=r"sft: step 3: recorded loss .* found loss .*cai sft --run r --redo") as caught:
        verify.run(finished, "sft")
    assert caught.value.exit_code == 65
    out = capsys.readouterr().out
    assert re.search(r"equal +outputs", out)
    assert re.search(r"DIFFERS +step 3", out)
    assert re.search(r"DIFFERS +final adapter", out)


def damage_output(stage: Path) -> None:
    (stage / "adapter" / "adapter_config.json").write_text("{}")


def remove_output(stage: Path) -> None:
    (stage / "loss_mask.txt").unlink()


def damage_checkpoint(stage: Path) -> None:
    path = stage / CHECKPOINTS / f"checkpoint-{STEPS - VERIFY_STEPS}" / "optimizer.pt"
    path.write_bytes(path.read_bytes()[:-1])


def reseal_checkpoint(stage: Path) -> None:
    """A checkpoint that is whole, and another than the chain names."""
    folder = stage / CHECKPOINTS / f"checkpoint-{STEPS}"
    (folder / "scheduler.pt").write_bytes(b"other")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"]["scheduler.pt"] = sha256_file(folder / "scheduler.pt")
    write_json(folder / "manifest.json", manifest)


def shorten_chain(stage: Path) -> None:
    lines = (stage / CHAIN).read_text().splitlines(keepends=True)
    (stage / CHAIN).write_text("".join(lines[1:]))


def damage_chain(stage: Path) -> None:
    lines = (stage / CHAIN).read_text().splitlines(keepends=True)
    (stage / CHAIN).write_text("".join([lines[0], "garbage\n", *lines[1:]]))


def damage_input(stage: Path) -> None:
    (stage.parent / "generate" / "sft.jsonl").write_text("")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_output, "outputs: recorded .* found sft/adapter/adapter_config.json changed"),
        (remove_output, "found sft/loss_mask.txt is missing"),
        (damage_checkpoint, r"checkpoint-2: recorded whole, found optimizer.pt changed"),
        (reseal_checkpoint, r"kept in chain: recorded all, found not in it: checkpoint-6"),
        (shorten_chain, "chain: recorded 2 links, found 1 links, not to the start: no link has the hash"),
        (damage_chain, "chain: recorded 2 links, found .*chain.jsonl is damaged: line 2 is no link: b'garbage'"),
        (damage_input, "inputs: .* generate/sft.jsonl changed"),
    ],
)
def test_a_file_that_is_not_the_recorded_one_is_named_before_anything_is_trained(
    finished: RunContext, damage: Callable[[Path], None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(finished.folder / "sft")
    monkeypatch.setattr(sft, "run", lambda context: pytest.fail("trained"))

    with pytest.raises(DataError, match=words):
        verify.run(finished, "sft")


def test_a_chain_that_was_lost_while_training_is_never_said_to_reach_the_start(
    tiny_run: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    context = tiny_run(sft={"max_steps": STEPS, "save_minutes": 1e-9})
    undisturbed = copy_run(context, "undisturbed")
    with monkeypatch.context() as patch:
        stop_after(patch, 10)
        with pytest.raises(StoppedError):
            sft.run(context)
    (context.folder / "sft" / CHAIN).write_bytes(b"\0" * 100 + b"\n")

    sft.run(context)
    sft.run(undisturbed)
    verify.run(context, "sft")
    verify.run(undisturbed, "sft")

    assert adapter_sha256(context, "sft") == adapter_sha256(undisturbed, "sft")
    found, whole = (" ".join(part.split()) for part in capsys.readouterr().out.split("undisturbed/sft:"))
    assert re.search(r"equal chain \d links, not to the start: no link has the hash \w+ that step \d went on", found)
    assert "not to the start" not in whole
    verify.run(context, "sft")
    said = " ".join(capsys.readouterr().err.split())
    assert "sft: equal, to the bit; its chain of checkpoints was damaged and does not reach the start" in said


def test_another_machine_is_named_before_the_steps_are_trained_again(
    finished: RunContext, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = finished.folder / "sft" / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest |= {"device": "NVIDIA A5000", "packages": manifest["packages"] | {"torch": "2.9.0"}}
    write_json(path, manifest)
    monkeypatch.setattr(shares, "epoch_order", lambda rows, seed, epoch: list(range(rows)))

    with pytest.raises(DataError, match="The likely reason: device was 'NVIDIA A5000'"):
        verify.run(finished, "sft")
    said = " ".join(capsys.readouterr().err.split())
    assert said.index("device was 'NVIDIA A5000', now 'cpu") < said.index("going on from step 2")
    assert "packages.torch was '2.9.0'" in said


def test_a_run_shorter_than_the_replay_is_trained_again_from_its_beginning(
    tiny_run: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    context = tiny_run(sft={"max_steps": 2})
    sft.run(context)
    verify.run(context, "sft")
    assert "steps 1 to 2, trained again from the beginning" in capsys.readouterr().out


def test_what_has_not_finished_or_keeps_no_checkpoint_cannot_be_verified(tiny_run: Runs) -> None:
    context = tiny_run(sft={"max_steps": 1})
    with pytest.raises(ConfigError, match="No finished"):
        verify.run(context, "sft")
    sft.run(context)
    for path in kept_checkpoints(context.folder / "sft"):
        (path / "manifest.json").unlink()
    with pytest.raises(ConfigError, match=r"keeps no checkpoint. Run: cai sft --run r --redo"):
        verify.run(context, "sft")
