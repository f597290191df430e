"""GPU types by the driver's names, and what a finished stage says beside what was predicted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jobs.common.errors import ConfigError
from jobs.common.gpus import GPUS, find_gpu, priced
from jobs.common.memory import GIB, Load, peak_bytes
from jobs.common.model_shape import KNOWN
from jobs.common.predicted import Ran, predicted_beside_real
from jobs.common.speed import COMPILE_S, STEP_S, share_of_peak

LOAD = Load(KNOWN["HuggingFaceTB/SmolLM2-1.7B-Instruct"], 16, 16384, compiled=True, scored_share=0.6)


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100-PCIe"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB"),
        ("NVIDIA A10", "A10"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA RTX A5000", "RTX-A5000"),
        ("NVIDIA GeForce RTX 3090", "RTX-3090"),
        ("NVIDIA GeForce RTX 4060 Ti", "RTX-4060-Ti-16GB"),
        ("Tesla T4", "T4"),
        ("NVIDIA RTX A4000", None),
    ],
)
def test_a_gpu_is_found_by_the_drivers_name(driver: str, name: str | None) -> None:
    found = find_gpu(driver)
    assert (found and found.name) == name


def test_only_what_has_no_bf16_is_refused() -> None:
    assert [gpu.name for gpu in GPUS if gpu.refusal] == ["T4"]
    assert "bf16" in GPUS[0].refusal


def test_prices_are_replaced_by_name() -> None:
    by_name = {gpu.name: gpu.usd_per_hour for gpu in priced(("h100=1.5", "L4=0"))}
    assert by_name["H100"] == 1.5
    assert by_name["L4"] == 0
    assert by_name["A10"] == next(gpu.usd_per_hour for gpu in GPUS if gpu.name == "A10")


@pytest.mark.parametrize("change", ["h101=2", "h100", "h100=", "h100=-1", "h100=nan", "=3"])
def test_a_price_that_is_none_is_refused_by_name(change: str) -> None:
    with pytest.raises(ConfigError, match=f"--gpu-price {change}"):
        priced((change,))


def test_predicted_stands_beside_real() -> None:
    peak = peak_bytes(LOAD).total
    ran = Ran("sft", LOAD, 500, 6_000_000, 600, 120, "NVIDIA H100 80GB HBM3", peak * 1.05)
    found = predicted_beside_real(ran)
    memory, speed, minutes = (found.for_manifest[name] for name in ("memory_gib", "tokens_per_s", "minutes"))
    assert memory["predicted"] == pytest.approx(peak / GIB, abs=0.001)
    assert memory["real"] == pytest.approx(1.05 * peak / GIB, abs=0.001)
    assert speed["real"] == 50_000
    assert minutes["real"] == 2
    assert minutes["predicted"]
    assert speed["predicted"]
    assert speed["predicted"] * minutes["predicted"] * 60 == pytest.approx(6_000_000, rel=0.01)
    # The real share of the peak follows from the speeds, as that of the passes does from the table.
    passes_s = minutes["predicted"] * 60 - 600 * STEP_S - COMPILE_S
    mfu = found.for_manifest["mfu"]["real"]
    assert mfu == pytest.approx(share_of_peak("sft", LOAD) * passes_s / 120, rel=0.01)
    assert found.line.startswith("sft: predicted / real: ")
    assert f"/ {1.05 * peak / GIB:.2f} GiB" in found.line


def test_layers_that_were_not_compiled_are_predicted_without_compiling() -> None:
    def minutes(compiled: bool, positions: int) -> float:
        load = replace(LOAD, compiled=compiled)
        ran = Ran("sft", load, 500, positions, 10, 60, "NVIDIA H100 80GB HBM3", None)
        return predicted_beside_real(ran).for_manifest["minutes"]["predicted"] or 0.0

    assert minutes(compiled=False, positions=100_000) < minutes(compiled=True, positions=100_000)
    assert minutes(compiled=False, positions=50_000_000) > minutes(compiled=True, positions=50_000_000)


def test_what_is_not_known_is_a_question_mark_and_none() -> None:
    ran = Ran("dpo", replace(LOAD, precision="fp32"), 500, 1000, 1, 10, "NVIDIA RTX 9999", GIB)
    found = predicted_beside_real(ran)
    assert found.for_manifest["tokens_per_s"] == {"predicted": None, "real": 100}
    assert found.for_manifest["mfu"] == {"real": None}
    assert "? / 100 tokens/s" in found.line
    assert "MFU" not in found.line


def test_a_cpu_has_no_memory_line_and_a_run_without_steps_no_speed() -> None:
    load = Load(KNOWN["embedded"], 16, 2048, device="cpu")
    found = predicted_beside_real(Ran("sft", load, 100, 0, 0, 0.0, "cpu (2 threads)", None))
    assert "GiB" not in found.line
    assert found.for_manifest["memory_gib"] == {"predicted": None, "real": None}
    assert found.for_manifest["tokens_per_s"]["real"] is None
