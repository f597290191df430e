"""GPU types people rent or own: memory, speed, and an example of the price. Needs no torch.

find_gpu("NVIDIA H100 80GB HBM3").bf16_flops
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from jobs.common.errors import ConfigError
from jobs.common.memory import GIB

PRICES_DATED = "2026-03"
"""When the prices were read: low public offers of one GPU by the hour. They change weekly; `--gpu-price` sets yours."""
TERA = 1e12


@dataclass(frozen=True)
class Gpu:
    """One GPU type."""

    name: str
    """Short name, as `--gpu-price` takes it."""
    driver_name: str
    """Pattern of the name that the driver gives."""
    memory_bytes: float
    """What CUDA reports as total memory, somewhat below the name on the box."""
    bf16_flops: float | None
    """Dense bf16 matrix products with fp32 sums, FLOP/s, as published; None: no bf16 in hardware."""
    usd_per_hour: float

    @property
    def refusal(self) -> str:
        """Why training refuses it; empty where it does not."""
        return "" if self.bf16_flops else "no bf16 (older than Ampere)"


def _gpu(name: str, driver_name: str, memory_gib: float, teraflops: float | None, usd_per_hour: float) -> Gpu:
    return Gpu(name, driver_name, memory_gib * GIB, teraflops and teraflops * TERA, usd_per_hour)


GPUS = (
    _gpu("T4", r"\bT4\b", 14.7, None, 0.35),
    _gpu("RTX-4060-Ti-16GB", r"4060 Ti", 15.6, 44, 0.12),
    _gpu("RTX-A5000", r"RTX A5000", 23.6, 111, 0.27),
    _gpu("RTX-3090", r"RTX 3090", 23.6, 71, 0.22),
    _gpu("RTX-4090", r"RTX 4090", 23.6, 165, 0.34),
    _gpu("A10", r"\bA10G?\b", 22.0, 125, 0.75),
    _gpu("L4", r"\bL4\b", 22.0, 121, 0.44),
    _gpu("RTX-5090", r"RTX 5090", 31.4, 209, 0.69),
    _gpu("A100-40GB", r"A100.*40GB", 39.4, 312, 1.29),
    _gpu("L40S", r"L40S", 44.4, 362, 0.79),
    _gpu("A100-80GB", r"A100.*80GB", 79.2, 312, 1.39),
    _gpu("H100-PCIe", r"H100 PCIe", 79.2, 756, 1.99),
    _gpu("H100", r"H100", 79.2, 989, 2.69),
    _gpu("H200", r"H200", 139.8, 989, 3.59),
)
"""Smallest memory first. Speeds: NVIDIA's data sheets, without sparsity."""


def find_gpu(driver_name: str) -> Gpu | None:
    """The type with the driver's name for it, None where it is not in the table.

    Args:
        driver_name: such as `NVIDIA H100 80GB HBM3` (torch.cuda.get_device_name).
    """
    return next((gpu for gpu in GPUS if re.search(gpu.driver_name, driver_name, re.IGNORECASE)), None)


def priced(changes: tuple[str, ...]) -> tuple[Gpu, ...]:
    """The table with other prices.

    Args:
        changes: `NAME=USD`, dollars for an hour.

    Raises:
        ConfigError: an unknown name, or no price.
    """
    gpus = {gpu.name.lower(): gpu for gpu in GPUS}
    for change in changes:
        name, _, price = change.partition("=")
        if name.lower() not in gpus:
            raise ConfigError(
                f"--gpu-price {change}: no GPU type {name!r}. There are: {', '.join(gpu.name for gpu in GPUS)}."
            )
        if not re.fullmatch(r"\d+(\.\d+)?", price):
            raise ConfigError(f"--gpu-price {change}: expected NAME=USD, dollars for an hour, such as {name}=0.5.")
        gpus[name.lower()] = replace(gpus[name.lower()], usd_per_hour=float(price))
    return tuple(gpus.values())
