"""SIGTERM ends at once what can be thrown away, and waits where weights or files change."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import torch

from jobs.common.errors import DataError, StoppedError
from jobs.train.stopping import StopFlag, sigterm_sets


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_while_nothing_can_be_lost_the_signal_ends_the_job_there_and_then() -> None:
    flag = StopFlag()
    with pytest.raises(StoppedError, match="Run the same command"), sigterm_sets(flag):
        terminate()
    assert flag.asked
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_where_weights_change_it_waits_for_the_part_that_can_be_thrown_away() -> None:
    flag, done = StopFlag(), []

    def work() -> None:
        with flag.waits():
            terminate()
            done.append("saved")
            with flag.interruptible():
                done.append("half a step")

    with pytest.raises(StoppedError), sigterm_sets(flag):
        work()
    assert done == ["saved"]


def test_a_part_that_can_be_thrown_away_is_left_at_once() -> None:
    flag, done = StopFlag(), []

    def work() -> None:
        with flag.waits():
            with flag.interruptible():
                terminate()
                done.append("too late")
            done.append("too late")

    with pytest.raises(StoppedError), sigterm_sets(flag):
        work()
    assert done == []


def test_a_stop_that_the_compiler_wraps_is_a_stop() -> None:
    def backend(_graph: Any, _inputs: Any) -> Any:
        terminate()
        raise AssertionError("the signal was lost")

    flag = StopFlag()

    def step() -> None:
        with flag.waits(), flag.interruptible():
            torch.compile(lambda x: x + 1, backend=backend)(torch.zeros(2))

    with pytest.raises(StoppedError, match=r"^Stopped by SIGTERM"), sigterm_sets(flag):
        step()
    torch._dynamo.reset()


def test_where_other_processes_take_part_the_signal_is_only_noted() -> None:
    flag, done = StopFlag(alone=False), []
    with sigterm_sets(flag):
        terminate()
        with flag.waits(), flag.interruptible():
            done.append("the step that the others take too")
    assert flag.asked
    assert done


def test_a_fault_of_the_users_keeps_its_words_when_the_signal_comes_too() -> None:
    flag = StopFlag(asked=True, alone=False)
    with pytest.raises(DataError, match="row 3"), flag.interruptible():
        raise DataError("row 3 is no number")
