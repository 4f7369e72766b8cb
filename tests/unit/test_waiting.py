"""Waiting for conditions, signals and time limits."""

import os
import signal
import time

import pytest

from bench.errors import Interrupted, RunTimeoutError
from bench.system.cancellation import Watch, wait_until, watching


def test_the_first_true_answer_ends_the_wait() -> None:
    """Not the clock."""
    answers = iter([None, "", "ready", "too late"])
    assert wait_until(lambda: next(answers), timeout_s=60, watch=Watch(), poll_s=0) == "ready"


def test_a_condition_that_does_not_come_true_ends_at_its_time() -> None:
    """With nothing, and after one look at least."""
    assert wait_until(lambda: None, timeout_s=0, watch=Watch()) is None
    assert wait_until(lambda: "at once", timeout_s=0, watch=Watch()) == "at once"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_a_note_that_ends_the_next_wait(number: signal.Signals) -> None:
    """Nothing happens inside the handler; the exit code is the signal's."""
    with watching() as watch:
        os.kill(os.getpid(), number)
        assert not watch.impatient
        with pytest.raises(Interrupted, match=f"ended by {number.name}") as caught:
            wait_until(lambda: "true", timeout_s=1, watch=watch)
    assert caught.value.exit_code == 128 + number


def test_a_second_signal_is_impatient_and_the_first_one_counts() -> None:
    """Ctrl-C, then SIGTERM: the exit code is that of Ctrl-C."""
    with watching() as watch:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert watch.impatient
        with pytest.raises(Interrupted, match="SIGINT"):
            watch.check()


@pytest.mark.parametrize(("number", "hasty"), [(signal.SIGINT, False), (signal.SIGTERM, True), (signal.SIGHUP, True)])
def test_a_keyboard_leaves_time_and_others_do_not(number: signal.Signals, *, hasty: bool) -> None:
    """By the first signal: whoever pressed Ctrl-C waits for the end of it."""
    watch = Watch()
    assert not watch.hasty
    watch.signals = [number]
    assert watch.hasty is hasty


def test_handlers_are_put_back() -> None:
    """After a run, signals do what they did before."""
    before = signal.getsignal(signal.SIGTERM)
    with watching():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_hang_up_that_is_ignored_stays_ignored() -> None:
    """So that nohup works."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with watching() as watch:
            os.kill(os.getpid(), signal.SIGHUP)
            watch.check()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_over_its_time_ends_at_the_next_wait() -> None:
    """With an exit code of its own."""
    with watching(timeout_s=0.001) as watch:
        deadline = watch.deadline
        assert deadline is not None
        while time.monotonic() <= deadline:
            pass
        with pytest.raises(RunTimeoutError, match="longer than --timeout") as caught:
            wait_until(lambda: "true", timeout_s=1, watch=watch)
    assert caught.value.exit_code == 10
