"""An interrupted run on a cluster is resumed; while it runs, other runs and cleanups are refused."""

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.k8s.client import Cluster
from tests import command
from tests.cluster.ends import SentSignal, print_figure
from tests.cluster.job import BASELINE, ISTIO, MESH, list_leftovers, run_command, run_job, until_loading
from tests.cluster.lab import CONTEXT
from tests.command import Command

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("as_before")]


@pytest.mark.parametrize(
    "configuration", [BASELINE, pytest.param(ISTIO, marks=pytest.mark.soak("cluster"))], ids=["baseline", "istio"]
)
def test_interrupted_run_resumes_and_excludes_others(
    cluster: Cluster, tmp_path: Path, configuration: Mapping[str, Any]
) -> None:
    """Cases 25, 50 and 52: interrupted while its first trial was removed, which counts; then `--resume` measures only
    the second block, and another run, and cleanups here and on the cluster, are refused with its name."""
    sent = SentSignal(signal.SIGINT, lambda started: started.line("delete-done", kind="Namespace"))
    first, second = (f"0{number}-{configuration['name']}-{number}" for number in (1, 2))
    mesh = MESH if configuration is ISTIO else ()
    load = {"duration": "10s"}  # long enough for the commands that are refused meanwhile
    cut = run_job(tmp_path, *mesh, scenario=[configuration], repeats=2, load=load, during=sent)
    assert (cut.exit_code, cut.record["status"]) == (130, "interrupted"), cut.output
    assert list_leftovers(cluster) == []
    trials = cut.trials()
    assert list(trials) == [first]

    def run_others(started: Command) -> None:
        until_loading(started, second)
        assert_others_refused(tmp_path, started.folder())

    whole = run_command(tmp_path, "run", "--resume", cut.folder, "--yes", during=run_others)
    ended = (whole.exit_code, whole.record["status"])
    assert ended in ((0, "complete"), (5, "invalid")), whole.output
    assert whole.run_folder == cut.run_folder
    assert list(whole.trials()) == [first, second]
    assert whole.trials()[first] == trials[first]
    assert (whole.folder / "report" / "index.html").is_file()
    assert list_leftovers(cluster) == []


def assert_others_refused(tmp_path: Path, run: Path) -> None:
    """Check that each of them exits with 8 and the run's name."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    other = run_job(elsewhere)
    assert other.exit_code == 8, other.output
    assert f"{run.name} (host " in other.message
    assert other.run_folder is None
    cleaned = run_command(elsewhere, "cleanup")
    assert (cleaned.exit_code, f"{run.name} is running on context {CONTEXT}" in cleaned.message) == (8, True)
    here = command.clean_up(run.parent)
    assert (here.code, f"{run} is running" in here.err) == (8, True), here.output
    print_figure(f"another run was refused after {other.seconds:.1f} s, a cleanup after {cleaned.seconds:.1f} s")
