"""What keeps a run from starting or from being deployed: exit codes 3, 4, 8, 9 and 130, and nothing left behind."""

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.system.lock import machine_lock
from tests import command

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def scenario(output: Path) -> Path:
    """The smallest run: no mesh, one trial."""
    return command.write_scenario(output.parent, [command.BASELINE])


@pytest.fixture
def meshed(output: Path) -> Path:
    """The smallest run with sidecars."""
    return command.write_scenario(output.parent, [command.ISTIO])


def test_a_second_run_stops_before_it_touches_anything(scenario: Path, output: Path) -> None:
    """Cases 25 and 26 on this machine: exit 8, the holder and its age named, nothing made."""
    command.wait_for_machine()
    with machine_lock(Path("/elsewhere/another-run"), "another-run"):
        finished = command.call("run", "--scenario", scenario, "--output", output, output=output)
    assert finished.code == 8, finished.told
    assert f"/elsewhere/another-run is running (process {os.getpid()}, for " in finished.err
    assert not output.exists()


INTERRUPTED_LOOK = """
import os, signal, bench.run.doctor
bench.run.doctor.examine = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)
"""


def test_ctrl_c_in_preflight_leaves_nothing(scenario: Path, output: Path) -> None:
    """Case 49: exit 130, one line, nothing made."""
    finished = command.run("run", "--scenario", scenario, output=output, driver=INTERRUPTED_LOOK)
    assert finished.code == 130, finished.told
    assert finished.err.strip() == "meshbench: interrupted; nothing was left behind"
    assert not output.exists()


def _forbid_many_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))


def _allow_many_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4096))


def test_too_few_open_files_are_told_with_the_command_that_mends_it(scenario: Path, output: Path) -> None:
    """Case 65: exit 3 with the limit, what is needed, and the command; nothing made."""
    finished = command.run("run", "--scenario", scenario, output=output, prepare=_forbid_many_files)
    assert finished.code == 3, finished.told
    assert "open files: at most 256, 1024 needed for 24 users; hint: " in finished.err
    assert "ulimit -Hn 1024" in finished.err
    assert not output.exists()


def test_few_processors_are_told_before_the_run(scenario: Path, output: Path) -> None:
    """Case 65: with fewer than four it says "not comparable", and goes on."""

    def take_one_processor() -> None:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    finished = command.call("doctor", "--output", output, output=output, prepare=take_one_processor)
    assert "warning  processors" in finished.out, finished.told
    assert "not comparable" in finished.out


def test_an_output_that_is_a_file_is_refused_before_the_run(scenario: Path, output: Path) -> None:
    """Case 55: exit 9, the file named and left as it was."""
    output.write_text("precious", "utf-8")
    finished = command.run("run", "--scenario", scenario, output=output)
    assert finished.code == 9, finished.told
    assert f"results folder: {output} is no folder; hint: choose another with --output" in finished.err
    assert output.read_text("utf-8") == "precious"


@pytest.fixture
def read_only(output: Path) -> Iterator[Path]:
    """`output` as a file system that cannot be written, which stops root, too."""
    output.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", output], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs the right to mount a file system: {error}")
    yield output
    subprocess.run(["umount", output], check=True)


def test_an_output_that_cannot_be_written_is_refused_before_the_run(scenario: Path, read_only: Path) -> None:
    """Case 55: exit 9 before anything is deployed."""
    finished = command.run("run", "--scenario", scenario, output=read_only)
    assert finished.code == 9, finished.told
    assert f"results folder: {read_only} cannot be written; hint: choose another with --output" in finished.err


TAKEN_PORT = """
import functools, socket, bench.targets.local.target as target
from bench.envoy.addresses import free_ports
holder = socket.socket()
holder.bind(("127.0.0.1", 0))
tries = [0]
def often_taken(names):
    tries[0] += 1
    ports = free_ports(names)
    return {{**ports, "reviews": holder.getsockname()[1]}} if tries[0] <= {times} else ports
target.place = functools.partial(target.place, choose_ports=often_taken)
"""


@pytest.mark.slow
def test_a_port_that_is_taken_meanwhile_is_picked_anew(scenario: Path, output: Path) -> None:
    """Cases 61 and 9: the run picks other ports and ends well; one repeat has no interval and no verdict. A soft limit
    of open files, which every process may raise, does not stand in its way (case 65)."""
    driver = TAKEN_PORT.format(times=1)
    finished = command.run("run", "--scenario", scenario, output=output, driver=driver, prepare=_allow_many_files)
    assert finished.code == 0, finished.told
    assert "one repeat has no spread: no interval" in finished.out
    starts = (command.only_run(output) / "journal.jsonl").read_text("utf-8").count('"start-process", "name": "reviews"')
    assert starts == 2


@pytest.mark.slow
def test_ports_that_are_always_taken_end_the_run_with_the_port(scenario: Path, output: Path) -> None:
    """Case 61: after three tries exit 4, with the service, the address and the reason; nothing is left."""
    finished = command.run("run", "--scenario", scenario, output=output, driver=TAKEN_PORT.format(times=9))
    assert finished.code == 4, finished.told
    assert "baseline did not become ready: reviews: exit code 1" in finished.err
    assert "'127.0.0.1', " in finished.err
    assert "address already in use" in finished.err.lower()
    assert "Traceback" not in finished.err.partition("reviews: exit code 1")[0]
    _assert_failed(output, 4)


BAD_BOOTSTRAP = """
from bench.meshes.data_planes import SHAPES
good = SHAPES["istio"].sidecar_bootstrap
def bad(workload, **options):
    return {**good(workload, **options), "nonsense": 1} if workload.name == "ratings" else good(workload, **options)
SHAPES["istio"].sidecar_bootstrap = bad
"""


def test_a_configuration_that_envoy_does_not_accept_is_told_in_its_words(meshed: Path, output: Path) -> None:
    """Case 62: exit 4 before a sidecar starts, naming whose configuration, with Envoy's own message."""
    finished = command.run("run", "--scenario", meshed, output=output, driver=BAD_BOOTSTRAP)
    assert finished.code == 4, finished.told
    assert "Envoy does not accept the configuration of ratings-sidecar: exit code 1" in finished.err
    assert "nonsense" in finished.err
    _assert_failed(output, 4)


SHORT_CERTIFICATES = """
import datetime, bench.envoy.certificates as certificates
certificates.SPARE = -datetime.timedelta(minutes=1)
"""


def test_certificates_that_would_expire_during_the_run_end_it(meshed: Path, output: Path) -> None:
    """Case 63: exit 4 before a process starts, with both times."""
    finished = command.run("run", "--scenario", meshed, output=output, driver=SHORT_CERTIFICATES)
    assert finished.code == 4, finished.told
    assert "the certificates of this run expire at " in finished.err
    assert "before its planned end at " in finished.err
    _assert_failed(output, 4)


def _assert_failed(output: Path, code: int) -> None:
    run = command.only_run(output)
    record = command.record(run)
    assert (record["status"], record["exit_code"]) == ("failed", code)
    assert record["reason"]
    assert command.left_of(run) == []
