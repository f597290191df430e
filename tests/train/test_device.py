from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jobs.common.errors import ConfigError
from jobs.train.device import choose_device

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="stands in for a machine whose GPU torch cannot use")


def test_without_a_driver_the_cpu_is_chosen_and_named(tmp_path: Path) -> None:
    device = choose_device(tmp_path / "nvidiactl")
    assert (device.kind, device.dtype_name) == ("cpu", "float32")
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
