"""What the machine does to a run, in one line with the right exit code; anything else keeps its traceback."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from jobs.common.errors import ConfigError, StoppedError
from jobs.train.device import libraries
from jobs.train.faults import in_four_bits
from tests.train.builders import make_context
from tests.train.test_checkpoints import sealed


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("backend='inductor' raised:\nOutOfMemoryError: CUDA out of memory. Tried to allocate 20 MiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
        OSError(12, "Cannot allocate memory"),
    ],
    ids=["cuda", "host", "while compiling", "cublas", "python", "kernel"],
)
def test_running_out_of_memory_says_what_to_change(error: Exception) -> None:
    with pytest.raises(ConfigError) as caught, libraries("sft", "r"):
        raise error
    line = str(caught.value)
    assert "\n" not in line
    for key in ("gradient_checkpointing", "quantization=nf4", "micro_batch_tokens", "max_length"):
        assert f"sft.{key}" in line
    assert "Go on with less: cai sft --run r --set sft.gradient_checkpointing=true" in line


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously reported",
        "CUDA error: an illegal memory access was encountered",
        "CUDA error: device-side assert triggered",
        "CUDA error: uncorrectable ECC error encountered",
        "NCCL Error 2: unhandled system error (run with NCCL_DEBUG=INFO for details)",
        "GPU has fallen off the bus",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "No CUDA GPUs are available",
    ],
)
def test_a_gpu_that_fails_is_a_stop_that_names_the_newest_checkpoint(tmp_path: Path, words: str) -> None:
    sealed(tmp_path, 8, 12)
    with pytest.raises(StoppedError) as caught, libraries("dpo", "r", tmp_path):
        raise RuntimeError(words)
    line = str(caught.value)
    assert "\n" not in line
    assert f"dpo: the GPU failed ({words.splitlines()[0]})" in line
    assert "Run the same command to go on (cai dpo --run r), from step 12." in line


def test_initial_responses_go_on_by_the_command_that_writes_them() -> None:
    with pytest.raises(StoppedError, match=r"\(cai respond --system base --run r\)"), libraries("initial", "r"):
        raise RuntimeError("GPU has fallen off the bus")


def test_before_the_first_checkpoint_the_line_says_that_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(StoppedError, match="no checkpoint was written yet"), libraries("sft", "r", tmp_path):
        raise RuntimeError("CUDA error: unknown error")


def test_what_torch_raises_for_a_failing_gpu_is_of_the_kind_that_is_read() -> None:
    for kind in (torch.AcceleratorError, torch.OutOfMemoryError, torch.distributed.DistBackendError):
        assert issubclass(kind, RuntimeError)


def test_a_torch_without_kernels_for_the_gpu_is_not_worth_another_try() -> None:
    with pytest.raises(ConfigError, match=r"does not fit the GPU .*Run: cai doctor --run r$"), libraries("sft", "r"):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device")


@pytest.mark.parametrize(
    "words",
    [
        "DataLoader worker (pid 4242) is killed by signal: Killed. ",
        "DataLoader worker (pid(s) 4242) exited unexpectedly",
        "One of the subprocesses has abruptly died during map operation.",
    ],
)
def test_a_dead_worker_is_a_stop(words: str) -> None:
    with pytest.raises(StoppedError, match=r"a worker process died .*Run the same command"), libraries("sft", "r"):
        raise RuntimeError(words)


def test_a_real_dead_worker_of_torchs_loader_is_a_stop(tmp_path: Path) -> None:
    class Fatal(torch.utils.data.Dataset[int]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, at: int) -> int:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGKILL)
            return at

    loader = torch.utils.data.DataLoader(Fatal(), num_workers=1, multiprocessing_context="fork")
    with pytest.raises(StoppedError, match="a worker process died"), libraries("sft", "r"):
        next(iter(loader))


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """A disk that is full once a file has so many bytes, as the kernel says it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_real_disk_that_takes_no_more_is_a_stop(tmp_path: Path) -> None:
    values = {"w": torch.zeros(300_000)}
    for write in (lambda: torch.save(values, tmp_path / "w.pt"), lambda: save_file(values, tmp_path / "w.safetensors")):
        with (
            pytest.raises(StoppedError, match=r"sft: disk full .*Run the same command"),
            libraries("sft", "r"),
            files_no_larger_than(100_000),
        ):
            write()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at inline_container.cc:668] . unexpected pos 576 vs 534"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["torch", "safetensors"],
)
def test_a_full_disk_is_a_stop_that_can_be_resumed(error: Exception) -> None:
    with pytest.raises(StoppedError, match=r"sft: disk full .*Run the same command"), libraries("sft", "r"):
        raise error


def test_a_stop_that_a_library_wrapped_is_still_a_stop() -> None:
    def compile_it(said: bool) -> None:
        try:
            raise StoppedError("stopped by SIGTERM")
        except StoppedError as error:
            raise RuntimeError("the compiler failed") from (error if said else None)

    for said in (True, False):
        with pytest.raises(StoppedError, match=r"^stopped by SIGTERM$"), libraries("sft", "r"):
            compile_it(said)


def test_a_disk_that_is_full_when_a_stop_wants_to_save_is_named() -> None:
    def save() -> None:
        try:
            raise StoppedError("stopped by SIGTERM; a checkpoint is saved")
        except StoppedError:
            raise OSError(28, "No space left on device") from None

    with pytest.raises(OSError, match="No space left"), libraries("sft", "r"):
        save()


def test_another_error_stays_a_bug() -> None:
    with pytest.raises(RuntimeError, match="shapes"), libraries("sft", "r"):
        raise RuntimeError("shapes differ")
    with pytest.raises(ValueError, match="CUDA error"), libraries("sft", "r"):
        raise ValueError("CUDA error in a text of ours")


def test_advice_for_the_other_jobs_names_their_own_keys() -> None:
    for section, words in {
        "initial": "Lower respond.batch_size, such as: cai respond --system base --run r --set",
        "respond": "cai respond --run r --redo --set respond.batch_size=1",
        "export": "CUDA_VISIBLE_DEVICES= cai export --run r",
    }.items():
        with pytest.raises(ConfigError) as caught, libraries(section, "r"):
            raise torch.OutOfMemoryError("CUDA out of memory.")
        assert words in str(caught.value)


def test_the_workspace_that_makes_cublas_repeatable_is_set_before_torch_is_imported() -> None:
    code = (
        "import os, sys; from jobs.train.device import go_offline; assert 'torch' not in sys.modules; go_offline(); "
        "print(os.environ['CUBLAS_WORKSPACE_CONFIG'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ":4096:8"


def test_four_bits_begin_with_sft_whichever_stage_lacks_memory(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    command = "cai sft --run r --redo --set sft.quantization=nf4 --set dpo.quantization=nf4"

    assert in_four_bits(context, "sft") == command
    assert in_four_bits(context, "dpo") == f"{command}, then dpo with the same options"
