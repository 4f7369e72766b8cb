"""Fixtures of the tests with real processes: a folder for the runs of a test, or of a module's tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.system.lock import PATH_VARIABLE
from tests import command


@pytest.fixture(scope="session", autouse=True)
def lock_of_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give each pytest-xdist worker its own host lock, for tests that measure nothing. Without workers, tests use the
    machine's lock, as every other run does."""
    with pytest.MonkeyPatch.context() as patch:
        if "PYTEST_XDIST_WORKER" in os.environ:
            patch.setenv(PATH_VARIABLE, str(tmp_path_factory.mktemp("lock") / "machine.lock"))
        yield


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Path]:
    """A folder for runs, not created yet; processes that a failed test leaves running are ended."""
    yield tmp_path / "results"
    _leave_nothing(tmp_path / "results")


@pytest.fixture(scope="module")
def shared_output(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder like `output` for a run that a module's tests share."""
    folder = tmp_path_factory.mktemp("shared") / "results"
    yield folder
    _leave_nothing(folder)


def _leave_nothing(output: Path) -> None:
    left = {run: command.find_leftovers(run) for run in output.glob("[!.]*/") if command.find_leftovers(run)}
    if left:
        command.clean_up(output)
    assert not left
