"""Speed and utilization as they are shown."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from transformers import LlamaConfig

from jobs.common.flops import Work, causal_context, mfu
from jobs.common.live import Training
from jobs.common.model_shape import shape_of
from jobs.train.execution import Execution
from jobs.train.meter import Meter, meter_of
from jobs.train.shares import Steps


def entry(tokens: int, rate: float, loss: float = 1.0) -> dict[str, float]:
    return {"step": 1, "loss": loss, "num_tokens": tokens, "tokens_per_s": rate}


def test_speed_is_the_tokens_over_the_seconds_of_recent_steps() -> None:
    meter, shown = Meter(), []
    for tokens, rate in [(1000, 100.0), (2000, 100.0), (2100, 1000.0)]:  # 10 s, 10 s, then 0.1 s for 100 tokens
        shown.append(meter.training(entry(tokens, rate)).tokens_per_s)

    assert shown[0] == 100.0, "alone in this process"
    assert shown[2] == pytest.approx((1000 + 100) / (10 + 0.1)), "a short step sways it little"


def test_speed_forgets_what_is_older_than_half_a_minute_but_never_the_latest_step() -> None:
    meter, tokens = Meter(), 0
    meter.training(entry(tokens, 10.0))
    for rate in [10.0] * 5 + [100.0] * 40:  # 10 s each, then 1 s each
        tokens += 100
        shown = meter.training(entry(tokens, rate))
    assert shown.tokens_per_s == pytest.approx(100.0)

    shown = meter.training(entry(tokens + 100, 0.5))  # one step of 200 s

    assert shown.tokens_per_s == pytest.approx(0.5)


def test_a_resumed_process_does_not_count_the_tokens_of_the_one_before() -> None:
    meter = Meter()
    meter.training(entry(1_000_000, 50.0))

    assert meter.training(entry(1_000_100, 50.0)).tokens_per_s == pytest.approx(50.0)


def test_mfu_is_the_arithmetic_done_over_what_the_device_could_do() -> None:
    meter = Meter(flops_per_token=4e9, peak_flops=1e15)

    assert meter.training(entry(100, 100_000.0)).mfu == pytest.approx(0.4)
    assert meter.measured(entry(100, 50_000.0))["mfu"] == pytest.approx(0.2)
    assert Meter(flops_per_token=4e9).training(entry(100, 100.0)).mfu is None
    assert "mfu" not in Meter(flops_per_token=4e9).measured(entry(100, 100.0))


def test_memory_is_the_most_that_was_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert Meter().measured(entry(100, 50.0)) == {}
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda: 5 * 2**30)

    assert Meter().measured(entry(100, 50.0)) == {"gpu_memory_bytes": 5 * 2**30}
    assert Meter().training(entry(100, 50.0)).gpu_memory_bytes == 5 * 2**30


def test_a_step_without_token_counts_still_shows_its_loss() -> None:
    assert Meter().training({"step": 1, "loss": 2.0}) == Training(2.0)


H100, CONFIG = "NVIDIA H100 80GB HBM3", LlamaConfig(tie_word_embeddings=True)


def meter_on(device: str, precision: str = "bf16", processes: int = 1) -> Meter:
    """Two pairs whose prompt is laid down once, of 300 positions and 400 tokens together, 200 of them scored."""
    steps = Steps([100, 200], [150, 250], 200, ["a", "b"], 2, 0)
    model = SimpleNamespace(config=CONFIG, peft_config={"default": SimpleNamespace(r=16)})
    execution = Execution(precision, 4096, False, "sdpa", False, device)  # type: ignore[arg-type]
    return meter_of(model, steps, execution, processes)


def test_mfu_counts_the_positions_that_were_computed_not_the_tokens_that_were_read() -> None:
    work = Work(shape_of(CONFIG.to_dict()), 16, causal_context([100, 200]), scored_share=2 / 3)

    found = meter_on(H100).measured(entry(400, 40_000.0))["mfu"]

    assert found == pytest.approx(mfu(40_000.0 * 300 / 400, work, 989e12))


def test_mfu_is_shared_by_all_gpus_and_unknown_where_no_peak_is() -> None:
    one, two = (meter_on(H100, processes=number).measured(entry(400, 1e4))["mfu"] for number in (1, 2))

    assert two == pytest.approx(one / 2)
    for meter in (meter_on("cpu (2 threads)"), meter_on(H100, "fp32"), meter_on("NVIDIA Nothing 9000")):
        assert "mfu" not in meter.measured(entry(400, 1e4))
