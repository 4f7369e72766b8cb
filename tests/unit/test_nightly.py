"""The steps of a night: each is made, whatever ended the one before."""

import errno
import os
from pathlib import Path

import pytest

from bench.cli.run import run
from tests.nights import call


@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 9, "No space left on device"),
        (RuntimeError("odd"), 1, "This is a bug in meshbench"),
    ],
    ids=["system", "bug"],
)
def test_night_cleans_up_whatever_ended_its_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    failure: Exception,
    code: int,
    message: str,
) -> None:
    """The exit code is that of the run; both cleanups are made."""

    def fail(**_: object) -> None:
        raise failure

    monkeypatch.setattr(run, "callback", fail)
    words = ("nightly", "--scenario", "istio-policies", "--history", tmp_path / "nights.jsonl")
    assert call(*words, "--output", tmp_path / "runs") == code
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.out.count("no leftover") == 2
    assert " for run, " in shown.out
