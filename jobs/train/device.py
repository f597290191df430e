"""Where training runs: CUDA in bf16 where there is a GPU, else the CPU in fp32. One process, no launcher, no network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

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
    """Trainers never speak to a hub and send no telemetry; must run before transformers or trl is imported."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_DATASETS_OFFLINE"] = "1"
    os.environ["TRACKIO_DISABLED"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")


def quiet_libraries() -> None:
    """Turn off the libraries' bars and chatter: the stage prints its own progress."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


@contextmanager
def memory_advice(section: str, run: str) -> Iterator[None]:
    """Turn an out-of-memory error into one line that says what to lower.

    Raises:
        ConfigError: the device ran out of memory.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        first = str(error).splitlines()[0]
        if section == "respond":
            advice = "Lower respond.batch_size or respond.max_new_tokens"
        else:
            advice = (
                f"Lower {section}.batch_size (raise {section}.gradient_accumulation_steps by the same factor), then "
                f"{section}.max_length, or set {section}.gradient_checkpointing=true or {section}.quantization=nf4"
            )
        raise ConfigError(
            f"{section}: out of memory ({first}). {advice}, such as: "
            f"cai {section} --run {run} --redo --set {section}.batch_size=1"
        ) from error
