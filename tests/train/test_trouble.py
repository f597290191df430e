"""A disk that fills up while a checkpoint is written, a GPU that fails within a step: the run goes on from there."""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Any

import pytest
from safetensors.torch import load_file

from jobs.common.errors import StoppedError
from jobs.common.stage import RunContext
from jobs.train import sft, watch
from jobs.train.checkpoints import CHECKPOINTS, kept_checkpoints, step_of
from jobs.train.sft_trainer import PackedSftTrainer
from tests.train.test_stop_and_resume import adapter_sha256, copy_run

Runs = Callable[..., RunContext]


def trouble_at(monkeypatch: pytest.MonkeyPatch, step: int, trouble: Callable[[], None]) -> None:
    """Let something happen when a step has ended, before it is saved."""
    original = watch.Watch.on_step_end

    def call(self: watch.Watch, args: Any, state: Any, control: Any, **given: Any) -> None:
        if state.global_step == step:
            trouble()
        original(self, args, state, control, **given)

    monkeypatch.setattr(watch.Watch, "on_step_end", call)


@pytest.mark.parametrize("largest", [10_000, 60_000], ids=["adapter", "optimizer"])
def test_a_disk_that_fills_up_within_a_save_loses_no_checkpoint_before_it(
    tiny_run: Runs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], largest: int
) -> None:
    context = tiny_run(sft={"max_steps": 5, "save_minutes": 1e-9})
    undisturbed = copy_run(context, "undisturbed")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with monkeypatch.context() as patch:
        trouble_at(patch, 3, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard)))
        try:
            with pytest.raises((StoppedError, OSError)) as caught:
                sft.run(context)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(caught.value, StoppedError) or caught.value.errno == 27
    folder = context.folder / "sft"
    assert [step_of(path) for path in kept_checkpoints(folder)] == [2, 1]
    assert not (folder / "adapter").exists()

    sft.run(context)
    sft.run(undisturbed)

    said = " ".join(capsys.readouterr().err.split())
    assert "checkpoint-3 was not written to its end; removed" in said
    assert "going on from step 2" in said
    assert adapter_sha256(context, "sft") == adapter_sha256(undisturbed, "sft")


def test_a_gpu_that_fails_within_a_step_names_the_checkpoint_that_the_same_command_goes_on_from(
    tiny_run: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = tiny_run(sft={"max_steps": 5, "save_minutes": 1e-9})
    undisturbed = copy_run(context, "undisturbed")
    original = PackedSftTrainer.micro_batch_loss

    def fail(self: Any, *arguments: Any) -> Any:
        if self.state.global_step == 3:
            raise RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be reported later")
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(PackedSftTrainer, "micro_batch_loss", fail)
        with pytest.raises(StoppedError, match=r"the GPU failed \(CUDA error: .*\)\. Run .*, from step 3\."):
            sft.run(context)

    sft.run(context)
    sft.run(undisturbed)

    assert adapter_sha256(context, "sft") == adapter_sha256(undisturbed, "sft")


def test_the_kept_checkpoint_holds_the_final_adapter(tiny_run: Runs) -> None:
    context = tiny_run(sft={"max_steps": 2})
    sft.run(context)
    stage = context.folder / "sft"
    last, final = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (stage / CHECKPOINTS / "checkpoint-2", stage / "adapter")
    )
    assert last.keys() == final.keys()
    assert all(bool((last[name] == final[name]).all()) for name in last)
