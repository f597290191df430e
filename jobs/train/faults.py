"""What torch and its friends say when the machine gives out, as one line and the right exit code.

Memory that does not suffice is for the user to change (78). A full disk, a GPU that is lost and a worker process that
died are stops: the same command goes on from the newest checkpoint (75).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

from jobs.common.context import COMMANDS, RunContext
from jobs.common.errors import ConfigError, JobError, StoppedError
from jobs.train.checkpoints import kept_checkpoints, step_of

NO_MEMORY = ("out of memory", "can't allocate memory", "no memory left", "cublas_status_alloc_failed")
NO_DISK = ("os error 28", "os error 122", "os error 27", "pytorchstreamwriter failed", "unexpected pos")
"""How safetensors and torch.save say that a file could not be written to its end (full disk, quota, size limit)."""
NO_KERNEL = ("no kernel image is available", "cuda driver version is insufficient")
GPU_LOST = (
    "cuda error",
    "cudnn error",
    "cudnn_status_",
    "cublas_status_",
    "cusparse_status_",
    "device-side assert",
    "fallen off the bus",
    "no cuda gpus are available",
    "nccl",
    "unspecified launch failure",
    "nvml_success",
)
WORKER_DIED = ("dataloader worker", "subprocesses has abruptly died", "terminated abruptly", "out of shared memory")


def known_fault(error: Exception, section: str, run: str, stage: Path | None) -> JobError | None:
    """The error in our words; None where it is about something else, which is a bug and keeps its traceback.

    Args:
        error: what a library raised.
        section: the stage, for messages.
        run: the run and its other options, as they are typed after `--run`; for messages.
        stage: folder of a stage that keeps checkpoints.
    """
    from safetensors import SafetensorError

    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        error = MemoryError(f"{error.strerror}: out of memory")
    if isinstance(error, (JobError, OSError)):  # said already, or said by the command line
        return None
    if not isinstance(error, (RuntimeError, MemoryError, SafetensorError)):  # torch's own errors are RuntimeErrors
        return _wrapped_stop(error)
    go_on = _go_on(section, run, stage)
    answers: tuple[tuple[tuple[str, ...], Callable[[str], JobError]], ...] = (
        (NO_MEMORY, lambda line: ConfigError(f"{section}: {line} {_memory_advice(section, run)}")),
        (NO_DISK, lambda line: StoppedError(f"{section}: disk full ({line}). Free some space. {go_on}")),
        (
            WORKER_DIED,
            lambda line: StoppedError(
                f"{section}: a worker process died ({line}), most often for lack of memory or /dev/shm. {go_on}"
            ),
        ),
        (
            NO_KERNEL,
            lambda line: ConfigError(
                f"{section}: this torch does not fit the GPU ({line}). Run: cai doctor --run {run}"
            ),
        ),
        (GPU_LOST, lambda line: StoppedError(f"{section}: the GPU failed ({line}). {go_on} {_again(section)}")),
    )
    for words, answer in answers:
        if line := _line_with(words, str(error) or "no memory left"):
            return answer(line)
    return _wrapped_stop(error)


def _wrapped_stop(error: BaseException | None) -> StoppedError | None:
    """The stop inside an error that a library made of it: torch's compiler wraps whatever is raised while it works."""
    while error is not None and not isinstance(error, StoppedError):
        error = error.__cause__ or error.__context__
    return error


def _line_with(words: tuple[str, ...], text: str) -> str | None:
    lines = (line.strip() for line in text.splitlines())
    return next((line[:300] for line in lines if any(word in line.lower() for word in words)), None)


def _go_on(section: str, run: str, stage: Path | None) -> str:
    same = f"Run the same command to go on (cai {COMMANDS.get(section, section)} --run {run})"
    if stage is None:
        return f"{same}."
    kept = kept_checkpoints(stage)
    return f"{same}, from step {step_of(kept[0])}." if kept else f"{same}; no checkpoint was written yet."


def _again(section: str) -> str:
    return (
        "If it fails at the same place again, it is not the hardware: set CUDA_LAUNCH_BLOCKING=1 and look at the "
        f"{section} rows; else see `dmesg | grep -i xid`."
    )


def _memory_advice(section: str, run: str) -> str:
    if section == "initial":  # a smaller batch goes on with what is answered
        lower = f"--run {run} --set respond.batch_size=1"
        return f"Lower respond.batch_size, such as: cai respond --system base {lower}"
    if section == "respond":
        lower = f"--run {run} --redo --set respond.batch_size=1"
        return f"Lower respond.batch_size or respond.max_new_tokens, such as: cai respond {lower}"
    if section in {"sft", "dpo"}:
        return (
            f"Go on with less: cai {section} --run {run} --set {section}.gradient_checkpointing=true, or a lower "
            f"{section}.micro_batch_tokens. If a single row does not fit: a lower {section}.max_length with --redo, or "
            "sft.quantization=nf4 and dpo.quantization=nf4 from sft on. `cai plan` shows what fits."
        )
    return f"Free memory, or use the CPU: CUDA_VISIBLE_DEVICES= cai {section} --run {run}"


def in_four_bits(context: RunContext, section: str) -> str:
    """What to run to hold the frozen weights in 4 bits: from sft on, since dpo goes on from its model."""
    command = context.command("sft", "--redo", "--set sft.quantization=nf4 --set dpo.quantization=nf4")
    return command if section == "sft" else f"{command}, then dpo with the same options"
