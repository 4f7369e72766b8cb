"""Waiting for conditions, signals and time limits."""

import os
import signal
import time

import pytest

from bench.errors import Interrupted, RunTimeoutError, exit_code_of
from bench.system.cancellation import CancelToken, catch_signals, wait_until


def test_first_true_result_ends_the_wait() -> None:
    """The wait does not last until its timeout."""
    answers = iter([None, "", "ready", "too late"])
    assert wait_until(lambda: next(answers), timeout_s=60, watch=CancelToken(), poll_s=0) == "ready"


def test_false_condition_ends_at_its_timeout() -> None:
    """The result is None, after at least one check."""
    assert wait_until(lambda: None, timeout_s=0, watch=CancelToken()) is None
    assert wait_until(lambda: "at once", timeout_s=0, watch=CancelToken()) == "at once"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_the_next_wait(number: signal.Signals) -> None:
    """The handler only stores it; the exit code is the signal's."""
    with catch_signals() as watch:
        os.kill(os.getpid(), number)
        assert not watch.is_forced
        with pytest.raises(Interrupted, match=f"ended by {number.name}") as caught:
            wait_until(lambda: "true", timeout_s=1, watch=watch)
    assert exit_code_of(caught.value) == 128 + number


def test_second_signal_forces_and_first_one_counts() -> None:
    """Ctrl-C, then SIGTERM: the exit code is that of Ctrl-C."""
    with catch_signals() as watch:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert watch.is_forced
        with pytest.raises(Interrupted, match="SIGINT"):
            watch.check()


@pytest.mark.parametrize(("number", "hasty"), [(signal.SIGINT, False), (signal.SIGTERM, True), (signal.SIGHUP, True)])
def test_only_keyboard_signals_leave_time(number: signal.Signals, *, hasty: bool) -> None:
    """The first signal decides: after Ctrl-C there is no short deadline."""
    watch = CancelToken()
    assert not watch.has_short_deadline
    watch.signals = [number]
    assert watch.has_short_deadline is hasty


def test_restores_signal_handlers() -> None:
    """After a run, signals have their previous effect."""
    before = signal.getsignal(signal.SIGTERM)
    with catch_signals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_ignored_hang_up_stays_ignored() -> None:
    """So that nohup works."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with catch_signals() as watch:
            os.kill(os.getpid(), signal.SIGHUP)
            watch.check()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_run_over_its_time_limit_ends_at_the_next_wait() -> None:
    """It has an exit code of its own."""
    with catch_signals(timeout_s=0.001) as watch:
        deadline = watch.deadline
        assert deadline is not None
        while time.monotonic() <= deadline:
            pass
        with pytest.raises(RunTimeoutError, match="longer than --timeout") as caught:
            wait_until(lambda: "true", timeout_s=1, watch=watch)
    assert exit_code_of(caught.value) == 10
