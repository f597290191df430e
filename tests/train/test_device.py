from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jobs.common.errors import ConfigError
from jobs.train import device as device_module
from jobs.train.device import Device, choose_device, choose_precision

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="stands in for a machine whose GPU torch cannot use")


def test_without_a_driver_the_cpu_is_chosen_and_named(tmp_path: Path) -> None:
    device = choose_device(tmp_path / "nvidiactl")
    assert device.kind == "cpu"
    assert "threads" in device.name


def test_a_gpu_that_torch_cannot_use_never_becomes_a_slow_cpu_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = tmp_path / "nvidiactl"
    driver.touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(ConfigError, match=r"shows an NVIDIA GPU, but torch .* cannot use it. Run: cai doctor"):
        choose_device(driver)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert choose_device(driver).kind == "cpu"


def test_a_gpu_without_bf16_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    with pytest.raises(ConfigError, match=r"Tesla T4 has compute capability 7\.5; .* needs 8\.0"):
        choose_device(tmp_path / "nvidiactl")


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("native", [True, False])
def test_precision_is_bf16_where_the_hardware_has_it_and_what_the_recipe_says_otherwise(
    kind: str, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_module, "native_bf16", lambda: native)
    device = Device(kind, "any")
    assert choose_precision("auto", device) == ("bf16" if kind == "cuda" or native else "fp32")
    assert choose_precision("fp32", device) == "fp32"
    assert choose_precision("bf16", device) == "bf16"
