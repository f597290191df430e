from __future__ import annotations

import pytest

from jobs.common.live import WINDOW_S, Eta, Live, RecentRate, duration, usd


@pytest.mark.parametrize(
    ("live", "line"),
    [
        (
            Live(in_flight=12, limit=64, throttled=3, tokens_per_s=412.4, spent_usd=0.31, left_usd=1.69),
            "12 in flight of 64 · 3×429 · 412 tokens/s · $0.31 spent, $1.69 left",  # noqa: RUF001
        ),
        (Live(in_flight=4, limit=4, tokens_per_s=98.6, spent_usd=0.0), "4 in flight of 4 · 99 tokens/s · $0"),
        (Live(limit=64, journalled=7, spent_usd=0.0, left_usd=2.0), "7 from the journal · $0 spent, $2.00 left"),
        (Live(paused_s=11.6, retried=2, failed=1), "paused for 12 s · 2 retried · 1 failed · cost unknown"),
        (Live(spent_usd=0.02, left_tokens=48000), "$0.0200 spent · 48000 tokens left"),
    ],
    ids=["busy", "embedded", "replaying", "paused", "token budget"],
)
def test_the_line_says_what_matters_and_leaves_empty_zeros_out(live: Live, line: str) -> None:
    assert live.line() == line


@pytest.mark.parametrize(
    ("amount", "text"), [(0.0, "$0"), (0.000001, "$0.0001"), (0.0312, "$0.0312"), (0.1, "$0.10"), (1234.5, "$1234.50")]
)
def test_money_never_reads_as_nothing(amount: float, text: str) -> None:
    assert usd(amount) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (119.4, "119 s"), (120, "2 min"), (7190, "2 h 0 min"), (12000, "3 h 20 min"), (345600, "4 days")],
)
def test_a_duration_reads_in_the_unit_of_its_size(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_recent_rate_forgets_what_is_older_than_its_window() -> None:
    now = [100.0]
    rate = RecentRate(window_s=10, clock=lambda: now[0])
    assert rate.per_s() == 0.0
    rate.add(500)
    assert rate.per_s() == 500.0  # never over less than a second
    for _ in range(20):
        now[0] += 1.0
        rate.add(30)
    assert rate.per_s() == pytest.approx(30.0, rel=0.11)
    now[0] += 11.0
    assert rate.per_s() == 0.0


def test_the_eta_follows_the_recent_speed() -> None:
    eta, done, found = Eta(), 0, None
    for second in range(300):
        found = eta.seconds(float(second), done, 10_000)
        done += 100 if second < 50 else 10
    assert found == pytest.approx((10_000 - done) / 10, rel=0.02)


def test_a_replayed_journal_does_not_touch_the_eta_of_what_follows() -> None:
    eta, now, replayed = Eta(), 0.0, 0
    for _ in range(3):
        found = eta.seconds(now, replayed, 100_000, Live(journalled=3 * replayed))
        now, replayed = now + 1.0, replayed + 20_000
    assert found == 3, "while it lasts, the replay is the speed"
    at_work = 0
    for tick in range(1, 60):
        done = replayed + tick // 5
        found = eta.seconds(now + tick, done, 100_000, Live(replies=3 * done - 3 * replayed, journalled=3 * replayed))
        at_work = max(at_work, found or 0)
        if tick > 10:
            assert found == pytest.approx((100_000 - done) * 5, rel=0.25)
    assert at_work > 100_000


def test_single_journalled_replies_among_new_ones_do_not_shake_the_eta() -> None:
    eta, found = Eta(), []
    for second in range(120):
        live = Live(replies=3 * second, journalled=4 * (second // 10))
        found.append(eta.seconds(float(second), second, 1_000, live))
    assert all(one == pytest.approx(1_000 - second, rel=0.2) for second, one in enumerate(found) if one and second > 5)
    assert None not in found[5:]


def test_steps_longer_than_the_window_have_an_eta() -> None:
    eta = Eta()
    found = [eta.seconds(2 * WINDOW_S * step, step, 10) for step in range(10)]
    assert found == [None, *(60 * (10 - step) for step in range(1, 10))]


def test_standing_still_moves_the_end_away() -> None:
    eta = Eta()
    for second in range(20):
        usual = eta.seconds(float(second), second, 100)
    stalled = [eta.seconds(19.0 + second, 19, 100) or 0 for second in (10, 60, 600)]
    assert usual == 81
    assert usual < stalled[0] < stalled[1] < stalled[2]


def test_a_step_that_begins_anew_forgets_its_earlier_speed() -> None:
    eta = Eta()
    for second in range(10):
        eta.seconds(float(second), 50 * second, 500)
    assert eta.seconds(10.0, 0, 500) is None
    assert eta.seconds(15.0, 5, 500) == 495
    assert eta.seconds(16.0, 500, 500) is None
