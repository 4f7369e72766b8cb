"""Every end of a command has one exit code, which one function decides."""

import re
import signal
from pathlib import Path

import pytest

import bench
from bench import errors
from bench.errors import ErrorKind, MeshbenchError, exit_code_of

BENCH = Path(bench.__file__).parent
README = (BENCH.parent / "README.md").read_text("utf-8")
CLASSES = {name: one for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, MeshbenchError)}


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("InputError", 2),
        ("RefusedError", 3),
        ("DeployError", 4),
        ("ClusterError", 4),
        ("BadAnswerError", 4),
        ("ProofError", 4),
        ("InvalidMeasurementError", 5),
        ("RegressionError", 6),
        ("LeftoversError", 7),
        ("LockedError", 8),
        ("StoreError", 9),
        ("RunTimeoutError", 10),
    ],
)
def test_failure_has_its_exit_code(name: str, code: int) -> None:
    """The README and docs/cluster.md promise these numbers to scripts."""
    assert exit_code_of(CLASSES[name]) == code
    assert re.search(rf"^\| {code} \|", README, re.MULTILINE)


def test_no_failure_is_forgotten() -> None:
    """Each expected failure has a code of its own or of its base; only a bug has 1."""
    assert {name for name, one in CLASSES.items() if exit_code_of(one) == 1} == {"MeshbenchError", "Interrupted"}


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGKILL, 137), (signal.SIGTERM, 143)]
)
def test_signal_has_the_exit_code_of_a_shell(number: signal.Signals, code: int) -> None:
    """A script sees no difference between a run that handled its signal and one that did not."""
    assert exit_code_of(errors.Interrupted(number)) == code


def test_success_is_0_and_a_bug_is_1() -> None:
    """An instance has the code of its class."""
    assert exit_code_of(None) == 0
    assert exit_code_of(ValueError("a bug")) == exit_code_of(KeyError) == 1
    assert exit_code_of(errors.ClusterError("no", kind=ErrorKind.FORBIDDEN)) == 4


def test_no_other_module_writes_an_exit_code() -> None:
    """A number elsewhere would be a second decision."""
    written = re.compile(r"exit_code ?= ?\d|sys\.exit\(\d|\b128 \+")
    found = {
        path.relative_to(BENCH).as_posix() for path in BENCH.rglob("*.py") if written.search(path.read_text("utf-8"))
    }
    assert found == {"load/recorder.py"}  # of Locust's process
