"""Where and in which precision training runs: CUDA where there is a GPU, else the CPU. No network."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jobs.common.errors import ConfigError
from jobs.common.processor import native_bf16
from jobs.train.faults import known_fault

BF16_CAPABILITY = (8, 0)
NVIDIA_DRIVER = Path("/dev/nvidiactl")
"""There only where the driver is, and in a container only where it was given a GPU."""


@dataclass(frozen=True)
class Device:
    """The device that was chosen."""

    kind: str
    """`cuda` or `cpu`."""
    name: str
    """For people and the manifest."""


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
    # cuBLAS sums in the same order every time only with a workspace of its own; it is read when CUDA starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def choose_precision(wanted: Literal["auto", "bf16", "fp32"], device: Device) -> Literal["bf16", "fp32"]:
    """Precision of frozen weights and matrix products; adapters are always fp32.

    Args:
        wanted: the recipe's `precision`; `auto` is bf16 on CUDA and on CPUs that have it in hardware.
        device: where training runs.
    """
    if wanted != "auto":
        return wanted
    return "bf16" if device.kind == "cuda" or native_bf16() else "fp32"


@contextmanager
def libraries(section: str, run: str, stage: Path | None = None) -> Iterator[None]:
    """Offline, without the libraries' notes to their own developers, and with advice when memory or disk runs out.

    Args:
        section: the stage, for messages.
        run: the run and its other options, as they are typed after `--run`; for messages.
        stage: folder of a stage that keeps checkpoints: the advice names the newest.

    Raises:
        ConfigError: the device ran out of memory; names what to lower.
        StoppedError: the disk is full, the GPU failed or a worker died; the same command goes on.
    """
    go_offline()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it advises a package that nothing here needs
    with warnings.catch_warnings():
        for package in ("accelerate", "bitsandbytes", "datasets", "peft", "torch", "transformers", "trl"):
            warnings.filterwarnings("ignore", module=rf"{package}(\.|$)")
        try:
            yield
        except Exception as error:
            known = known_fault(error, section, run, stage)
            if known is None:
                raise
            raise known from error
