"""Where training runs: CUDA in bf16 where there is a GPU, else the CPU in fp32. One process, no network."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jobs.common.errors import ConfigError, JobError, StoppedError

BF16_CAPABILITY = (8, 0)
NVIDIA_DRIVER = Path("/dev/nvidiactl")
"""There only where the driver is, and in a container only where it was given a GPU."""

NO_MEMORY = ("out of memory", "can't allocate memory", "no memory left")
NO_DISK = ("os error 28", "pytorchstreamwriter failed", "unexpected pos")
"""How safetensors and torch.save say that a file could not be written to its end."""


@dataclass(frozen=True)
class Device:
    """The device that was chosen."""

    kind: str
    """`cuda` or `cpu`."""
    name: str
    """For people and the manifest."""

    @property
    def dtype_name(self) -> str:
        """Dtype of the frozen weights and of the matmuls; adapters are always fp32."""
        return "bfloat16" if self.kind == "cuda" else "float32"


def choose_device(driver: Path = NVIDIA_DRIVER) -> Device:
    """CUDA if there is a device, else the CPU; says so in the name.

    Raises:
        ConfigError: a GPU is there but torch cannot use it, or it has no bf16: neither may end as a slow CPU run.
    """
    import torch

    if torch.cuda.is_available():
        name, capability = torch.cuda.get_device_name(0), torch.cuda.get_device_capability(0)
        if capability < BF16_CAPABILITY:
            found = ".".join(map(str, capability))
            raise ConfigError(f"{name} has compute capability {found}; bf16 training needs 8.0 (Ampere) or later.")
        return Device("cuda", name)
    if driver.exists() and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
        raise ConfigError(
            f"{driver} shows an NVIDIA GPU, but torch {torch.__version__} cannot use it. Run: cai doctor. "
            "To train on the CPU all the same: CUDA_VISIBLE_DEVICES="
        )
    return Device("cpu", f"cpu ({torch.get_num_threads()} threads)")


def go_offline() -> None:
    """No hub, no telemetry, no chatter; must run before torch, transformers, datasets or trl is imported."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ[name] = "1"
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that wait by spinning make a CPU that others share several times slower; sleeping costs little.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def without_compiled_kernels() -> None:
    """Have TRL's fused LM head use torch's own operations on CUDA, as it does on the CPU.

    On CUDA it would use Triton kernels, which call a C compiler and Python's headers at the first forward pass of sft
    and dpo; the CUDA image and many rented machines have neither.
    """
    from trl.kernels import chunked_logprob

    if not hasattr(chunked_logprob, "_TRITON_AVAILABLE"):
        raise AttributeError("trl.kernels.chunked_logprob no longer has _TRITON_AVAILABLE: look at this TRL again.")
    chunked_logprob._TRITON_AVAILABLE = False


@contextmanager
def libraries(section: str, run: str) -> Iterator[None]:
    """Offline, without the libraries' notes to their own developers, and with advice when memory or disk runs out.

    Raises:
        ConfigError: the device ran out of memory; names what to lower.
        StoppedError: the disk is full; torch and safetensors say so without an OSError.
    """
    go_offline()
    with warnings.catch_warnings():
        for package in ("accelerate", "bitsandbytes", "datasets", "peft", "torch", "transformers", "trl"):
            warnings.filterwarnings("ignore", module=rf"{package}(\.|$)")
        try:
            yield
        except Exception as error:
            known = _ran_out(error, section, run)
            if known is None:
                raise
            raise known from error


def _ran_out(error: Exception, section: str, run: str) -> JobError | None:
    """What ran out, in our words; None where the error is about something else."""
    from safetensors import SafetensorError

    if not isinstance(error, (RuntimeError, MemoryError, SafetensorError)):  # torch.OutOfMemoryError is a RuntimeError
        return None
    first = (str(error) or "no memory left").splitlines()[0]
    if any(words in first.lower() for words in NO_MEMORY):
        return ConfigError(f"{section}: {first} {_memory_advice(section, run)}")
    if any(words in first.lower() for words in NO_DISK):
        return StoppedError(f"{section}: disk full ({first}). Free some space, then run the same command to go on.")
    return None


def _memory_advice(section: str, run: str) -> str:
    if section == "initial":  # a smaller batch goes on with what is answered
        lower = f"--run {run} --set respond.batch_size=1"
        return f"Lower respond.batch_size, such as: cai respond --system base {lower}"
    if section == "respond":
        lower = f"--run {run} --redo --set respond.batch_size=1"
        return f"Lower respond.batch_size or respond.max_new_tokens, such as: cai respond {lower}"
    return (
        f"Lower {section}.batch_size (raise {section}.gradient_accumulation_steps by the same factor) or "
        f"{section}.max_length, or set {section}.gradient_checkpointing=true or {section}.quantization=nf4, such as: "
        f"cai {section} --run {run} --redo --set {section}.batch_size=1"
    )
