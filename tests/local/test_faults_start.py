"""What prevents a run from starting or being deployed: exit codes 3, 4, 8, 9 and 130, and nothing left."""

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.system.lock import hold_host_lock
from tests import command
from tests.issues import read_reasons


@pytest.fixture
def scenario(output: Path) -> Path:
    """The smallest run: no mesh, one trial."""
    return command.write_scenario(output.parent, [command.BASELINE])


@pytest.fixture
def meshed(output: Path) -> Path:
    """The smallest run with sidecars."""
    return command.write_scenario(output.parent, [command.ISTIO])


def test_second_run_is_refused(scenario: Path, output: Path) -> None:
    """Cases 25 and 26 on this machine: exit 8, the holder of the lock and its age named, nothing created."""
    command.wait_for_machine()
    with hold_host_lock(Path("/elsewhere/another-run"), "another-run"):
        finished = command.call("run", "--scenario", scenario, "--output", output, output=output)
    assert finished.code == 8, finished.output
    assert f"/elsewhere/another-run is running (process {os.getpid()}, for " in finished.err
    assert not output.exists()


INTERRUPTED_LOOK = """
import os, signal, bench.run.doctor
bench.run.doctor.check_host = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)
"""


def test_ctrl_c_in_preflight_leaves_nothing(scenario: Path, output: Path) -> None:
    """Case 49: exit 130, one line, nothing created."""
    finished = command.run("run", "--scenario", scenario, output=output, driver=INTERRUPTED_LOOK)
    assert finished.code == 130, finished.output
    assert finished.err.strip() == "meshbench: interrupted"
    assert not output.exists()


def _forbid_many_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))


def _allow_many_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4096))


def test_low_open_file_limit_is_refused_with_a_hint(scenario: Path, output: Path) -> None:
    """Case 65: exit 3 with the limit, the needed number, and the command; nothing created."""
    finished = command.run("run", "--scenario", scenario, output=output, prepare=_forbid_many_files)
    assert finished.code == 3, finished.output
    assert "open files: at most 256, 1024 needed for 24 users; hint: " in finished.err
    assert "ulimit -Hn 1024" in finished.err
    assert not output.exists()


def test_few_cpus_are_a_warning(scenario: Path, output: Path) -> None:
    """Case 65: with fewer than four CPUs the check prints "not comparable", and the run continues."""

    def take_one_cpu() -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    finished = command.call("doctor", "--output", output, output=output, prepare=take_one_cpu)
    assert "warning  CPUs" in finished.out, finished.output
    assert "not comparable" in finished.out


def test_output_that_is_a_file_is_refused(scenario: Path, output: Path) -> None:
    """Case 55: exit 9; the file is named and unchanged."""
    output.write_text("precious", "utf-8")
    finished = command.run("run", "--scenario", scenario, output=output)
    assert finished.code == 9, finished.output
    assert f"results folder: {output} is not a folder; hint: choose another with --output" in finished.err
    assert output.read_text("utf-8") == "precious"


@pytest.fixture
def read_only(output: Path) -> Iterator[Path]:
    """`output` as a read-only file system, which stops root, too."""
    output.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", output], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs the right to mount a file system: {error}")
    yield output
    subprocess.run(["umount", output], check=True)


def test_unwritable_output_is_refused(scenario: Path, read_only: Path) -> None:
    """Case 55: exit 9 before anything is deployed."""
    finished = command.run("run", "--scenario", scenario, output=read_only)
    assert finished.code == 9, finished.output
    assert f"results folder: {read_only} cannot be written; hint: choose another with --output" in finished.err


TAKEN_PORT = """
import socket, bench.targets.local.target as target
from bench.envoy.addresses import free_ports
holder = socket.socket()
holder.bind(("127.0.0.1", 0))
tries = [0]
def often_taken(names):
    tries[0] += 1
    ports = free_ports(names)
    return {{**ports, "reviews": holder.getsockname()[1]}} if tries[0] <= {times} else ports
target.free_ports = often_taken
"""


@pytest.mark.slow
def test_port_in_use_is_replaced(scenario: Path, output: Path) -> None:
    """Cases 61 and 9: the run picks other ports and succeeds; one repeat has no interval and no verdict. A soft limit
    of open files, which every process may raise, is no obstacle (case 65)."""
    driver = TAKEN_PORT.format(times=1)
    finished = command.run("run", "--scenario", scenario, output=output, driver=driver, prepare=_allow_many_files)
    assert finished.code == 0, finished.output
    assert "one repeat has no spread: no interval" in finished.out
    starts = (
        (command.find_only_run(output) / "journal.jsonl").read_text("utf-8").count('"start-process", "name": "reviews"')
    )
    assert starts == 2


@pytest.mark.slow
def test_ports_always_in_use_end_the_run(scenario: Path, output: Path) -> None:
    """Case 61: after three tries exit 4 with the service, the address and the reason; nothing is left."""
    finished = command.run("run", "--scenario", scenario, output=output, driver=TAKEN_PORT.format(times=9))
    assert finished.code == 4, finished.output
    assert "baseline did not become ready: reviews: exit code 1" in finished.err
    assert "'127.0.0.1', " in finished.err
    assert "address already in use" in finished.err.lower()
    assert "Traceback" not in finished.err.partition("reviews: exit code 1")[0]
    _assert_failed(output, 4)


BAD_BOOTSTRAP = """
from bench.meshes.istio.data_plane import DATA_PLANE
good = DATA_PLANE.sidecar_bootstrap
def bad(workload, **given):
    built = good(workload, **given)
    return {**built, "nonsense": 1} if workload.name == "ratings" else built
object.__setattr__(DATA_PLANE, "sidecar_bootstrap", bad)
"""


def test_rejected_envoy_configuration_prints_envoys_message(meshed: Path, output: Path) -> None:
    """Case 62: exit 4 before a sidecar starts, with the configuration's name and Envoy's own message."""
    finished = command.run("run", "--scenario", meshed, output=output, driver=BAD_BOOTSTRAP)
    assert finished.code == 4, finished.output
    assert "Envoy rejects the configuration of ratings-sidecar: exit code 1" in finished.err
    assert "nonsense" in finished.err
    _assert_failed(output, 4)


SHORT_CERTIFICATES = """
import datetime, bench.envoy.certificates as certificates
certificates.SPARE = -datetime.timedelta(minutes=1)
"""


def test_certificates_expiring_during_run_are_refused(meshed: Path, output: Path) -> None:
    """Case 63: exit 4 before a process starts, with both times."""
    finished = command.run("run", "--scenario", meshed, output=output, driver=SHORT_CERTIFICATES)
    assert finished.code == 4, finished.output
    assert "the certificates of this run expire at " in finished.err
    assert "before its planned end at " in finished.err
    _assert_failed(output, 4)


def _assert_failed(output: Path, code: int) -> None:
    run = command.find_only_run(output)
    record = command.read_record(run)
    assert (record["status"], record["exit_code"]) == ("failed", code)
    assert read_reasons(record)
    assert command.find_leftovers(run) == []
