"""Where training runs: CUDA in bf16 where there is a GPU, else the CPU in fp32. One process, no network."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from jobs.common.errors import ConfigError


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


def choose_device() -> Device:
    """CUDA if there is a device, else the CPU; says so in the name."""
    import torch

    if torch.cuda.is_available():
        return Device("cuda", torch.cuda.get_device_name(0))
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


@contextmanager
def libraries(section: str, run: str) -> Iterator[None]:
    """Offline, without the libraries' notes to their own developers, and with advice when memory runs out.

    Raises:
        ConfigError: the device ran out of memory; names what to lower.
    """
    go_offline()
    with warnings.catch_warnings():
        for package in ("accelerate", "bitsandbytes", "datasets", "peft", "torch", "transformers", "trl"):
            warnings.filterwarnings("ignore", module=rf"{package}(\.|$)")
        try:
            yield
        except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
            first = (str(error) or "no memory left").splitlines()[0]
            known = ("out of memory", "can't allocate memory", "no memory left")
            if not any(words in first.lower() for words in known):
                raise
            raise ConfigError(f"{section}: {first} {_memory_advice(section, run)}") from error


def _memory_advice(section: str, run: str) -> str:
    if section == "respond":
        advice = "Lower respond.batch_size or respond.max_new_tokens"
    else:
        advice = (
            f"Lower {section}.batch_size (raise {section}.gradient_accumulation_steps by the same factor) or "
            f"{section}.max_length, or set {section}.gradient_checkpointing=true or {section}.quantization=nf4"
        )
    return f"{advice}, such as: cai {section} --run {run} --redo --set {section}.batch_size=1"
