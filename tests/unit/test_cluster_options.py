"""The options of a cluster: validated for a new run, compared with the first start for a resumed one."""

import json
from pathlib import Path
from typing import Any, cast

import click
import pytest
from click.testing import CliRunner

from bench.cli.options import cluster_options, pop_cluster_flags
from bench.cli.progress import PlainLines
from bench.errors import InputError, exit_code_of
from bench.results.records import ClusterRecord, RunRecord
from bench.run.session import read_resumable_run, resume
from bench.scenario.loader import load_scenario
from bench.scenario.overrides import Overrides
from bench.targets.cluster.flags import CLUSTER_FLAGS
from bench.targets.cluster.load.placement import place_load
from bench.targets.cluster.options import VALUES, ClusterOptions, read_options, read_resumed_options
from bench.targets.cluster.prometheus import without_password
from bench.targets.cluster.session import ClusterBackend
from tests.factory import RunSpec, make_run
from tests.shown_cluster import fake, options

ISTIO = load_scenario("istio-policies", Overrides())
BEGUN = ClusterRecord(
    version="v1.34.2",
    nodes=1,
    images={"load": "m.example/locust:1"},
    registry="m.example",
    mesh_values={"istio": ("istio-1-small.yaml",)},
    mesh_versions={"istio": "1.31.0"},
    hub="m.example/istio",
    prometheus="monitoring/prometheus:9090",
    load_node="b",
)


def flags(**given: Any) -> dict[str, Any]:
    return {"context": "lab", **given}


def test_every_option_is_in_the_table() -> None:
    """The command line, the messages and the checked options have the same names."""
    assert {*CLUSTER_FLAGS, "load_node", "placement", "resumed"} == {*ClusterOptions.__dataclass_fields__}


@click.command()
@cluster_options
def given(**arguments: Any) -> None:
    """Print the options that were given for a cluster."""
    click.echo(json.dumps(pop_cluster_flags(arguments)))


@click.command()
@cluster_options
def step(**arguments: Any) -> None:
    """Invoke the other command, as a night does with its steps."""
    click.get_current_context().invoke(given, **arguments)


@pytest.mark.parametrize("command", [given, step], ids=lambda one: str(one.name))
@pytest.mark.parametrize(
    ("arguments", "options"),
    [(["--context", "lab"], {"context": "lab", "prometheus": "http://me:pw@host"}), ([], {})],
    ids=["cluster", "machine"],
)
def test_url_of_prometheus_is_taken_from_a_variable(
    command: click.Command, arguments: list[str], options: dict[str, str]
) -> None:
    """A command line is shown to all users of a machine. A run without a cluster is as it was."""
    answer = CliRunner().invoke(command, arguments, env={"MESHBENCH_PROMETHEUS": "http://me:pw@host"})
    assert json.loads(answer.output) == options


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that was started on a cluster, with a values file."""
    folder = tmp_path / "run"
    (folder / VALUES).mkdir(parents=True)
    (folder / VALUES / "istio-1-small.yaml").write_text("small: true\n", "utf-8")
    return folder


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    return make_run(tmp_path / "made", RunSpec()).record.model_copy(update={"scenario": ISTIO, "cluster": BEGUN})


def test_resume_restores_options(run: Path, record: RunRecord) -> None:
    """Images, values, mesh, Prometheus and the load's node come from the run's folder; other options have to be
    repeated."""
    found = read_resumed_options(flags(agreed=True, keep=True), record, run)
    assert found == options(
        agreed=True,
        keep=True,
        images=BEGUN.images,
        registry="m.example",
        mesh_values={"istio": (run / VALUES / "istio-1-small.yaml",)},
        hub="m.example/istio",
        prometheus="monitoring/prometheus:9090",
        load_node="b",
        resumed=True,
    )


def test_resumed_run_keeps_its_requests(run: Path, record: RunRecord) -> None:
    """Half of the trials would have other shares of the CPUs."""
    cluster = BEGUN.model_copy(update={"scale_requests": 0.25})
    stored = record.model_copy(update={"cluster": cluster})
    assert read_resumed_options(flags(), stored, run).scale_requests == 0.25
    with pytest.raises(InputError, match=r"--scale-requests 50% \(begun with 25%\)"):
        read_resumed_options(flags(scale_requests="50%"), stored, run)


def test_resumed_run_keeps_its_placement(run: Path, record: RunRecord) -> None:
    """The load's nodes come from the record of the command's option, all others from the scenario."""
    cluster = BEGUN.model_copy(update={"load_selector": "role=benchmark"})
    found = read_resumed_options(flags(), record.model_copy(update={"cluster": cluster}), run)
    assert found.placement.describe() == ("load: nodes with role=benchmark",)
    assert found.load_selector == "role=benchmark"


def test_resume_accepts_repeated_options(run: Path, record: RunRecord, tmp_path: Path) -> None:
    """A command from the shell's history may be repeated with --resume; a values file is compared by its content."""
    (tmp_path / "other-name.yaml").write_text("small: true\n", "utf-8")
    same = flags(
        images=("load=m.example/locust:1",),
        registry="m.example",
        mesh_values=(str(tmp_path / "other-name.yaml"),),
        hub="m.example/istio",
        prometheus="monitoring/prometheus:9090",
    )
    assert read_resumed_options(same, record, run) == read_resumed_options(flags(), record, run)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"images": ("load=x.example/locust:2",)},
            r"--image load=x\.example/locust:2 \(begun with m\.example/locust:1",
        ),
        ({"images": ("bookinfo=x.example/b:2",)}, r"--image bookinfo=x\.example/b:2 \(begun with none\)"),
        ({"registry": "x.example"}, r"--registry x\.example \(begun with m\.example\)"),
        ({"hub": "x.example"}, r"--mesh-hub x\.example \(begun with m\.example/istio\)"),
        ({"tag": "1.30.0"}, r"--mesh-tag 1\.30\.0 \(begun with none\)"),
        ({"revision": "canary"}, r"--mesh-revision canary \(begun with none\)"),
        ({"load_selector": "role=benchmark"}, r"--load-node role=benchmark \(begun with none\)"),
        ({"existing_mesh": True}, r"--use-existing-mesh \(begun with one of its own\)"),
        ({"prometheus": "http://x.example"}, r"--prometheus http://x\.example \(begun with monitoring/prometheus:9090"),
    ],
)
def test_resume_refuses_contradicting_options(
    run: Path, record: RunRecord, given: dict[str, Any], expected: str
) -> None:
    """One sentence names the option and the value at the start of the run."""
    with pytest.raises(InputError, match=expected) as refused:
        read_resumed_options(flags(**given), record, run)
    assert exit_code_of(refused.value) == 2
    assert str(refused.value).startswith(
        f"{run}: a run is resumed with the options that it was begun with; hint: leave out"
    )


def test_resume_refuses_other_values(run: Path, record: RunRecord, tmp_path: Path) -> None:
    """The content of the file counts, also under the same name."""
    (tmp_path / "small.yaml").write_text("small: false\n", "utf-8")
    with pytest.raises(InputError, match=r"--mesh-values \(begun with istio-1-small\.yaml\)"):
        read_resumed_options(flags(mesh_values=(str(tmp_path / "small.yaml"),)), record, run)


def test_does_not_resume_local_run_on_a_cluster(run: Path, record: RunRecord) -> None:
    """The numbers would not be comparable."""
    with pytest.raises(InputError, match="was measured on one machine; hint: resume it without --context"):
        read_resumed_options(flags(), record.model_copy(update={"cluster": None}), run)


@pytest.mark.parametrize(
    ("cluster", "status", "expected"),
    [
        (BEGUN, "interrupted", "this run was started on a cluster; add --context NAME"),
        (None, "interrupted", "this run was started on one machine; leave out --context"),
        (None, "complete", "all trials of this run are complete"),
    ],
)
def test_refuses_resume_before_opening_a_backend(
    tmp_path: Path, cluster: ClusterRecord | None, status: str, expected: str
) -> None:
    """Neither the cluster nor the host lock is examined before."""
    made = make_run(tmp_path, RunSpec(status=status))
    kind = "kubernetes" if cluster else "local"
    target = made.record.target.model_copy(update={"kind": kind})
    stored = made.record.model_copy(update={"cluster": cluster, "target": target})
    (made.path / "run.json").write_text(stored.model_dump_json(), "utf-8")
    with pytest.raises(InputError, match=expected):
        read_resumable_run(made.path, on_cluster=cluster is None and status != "complete")


def _place(record: RunRecord, versions: dict[str, str], chosen: ClusterOptions) -> ClusterBackend:
    now = BEGUN.model_copy(update={"mesh_versions": versions})
    target = record.target.model_copy(update={"kind": "kubernetes"})
    return ClusterBackend(fake(), chosen, target, now, record.environment, (), place_load(()), cast("Any", None))


@pytest.mark.parametrize("versions", [{"istio": "1.30.0"}, {}])
def test_resume_refuses_another_mesh_version(tmp_path: Path, versions: dict[str, str]) -> None:
    """The tool on PATH is the one that installs the mesh: half of the trials would measure another version."""
    made = make_run(tmp_path, RunSpec(status="interrupted"))
    target = made.record.target.model_copy(update={"kind": "kubernetes"})
    stored = made.record.model_copy(update={"cluster": BEGUN, "target": target})
    (made.path / "run.json").write_text(stored.model_dump_json(), "utf-8")
    with pytest.raises(InputError, match=rf"istio: 1\.31\.0 / {versions.get('istio', 'unknown')}"):
        resume(made.path, _place(stored, versions, options()), cast("Any", None), progress=PlainLines)


def test_resume_refuses_another_load_node(tmp_path: Path) -> None:
    """Its node may be deleted or cordoned: later trials would not be comparable."""
    made = make_run(tmp_path, RunSpec(status="interrupted"))
    target = made.record.target.model_copy(update={"kind": "kubernetes"})
    begun = BEGUN.model_copy(update={"load_node": "a"})
    stored = made.record.model_copy(update={"cluster": begun, "target": target})
    (made.path / "run.json").write_text(stored.model_dump_json(), "utf-8")
    with pytest.raises(InputError, match="the load's node: a / b"):
        resume(made.path, _place(stored, {"istio": "1.31.0"}, options()), cast("Any", None), progress=PlainLines)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"images": ("details",)}, "write NAME=REF"),
        ({"mesh_values": ("nowhere.yaml",)}, "nowhere.yaml is not a file"),
        ({"mesh_values": ("kuma=nowhere.yaml",)}, "this scenario has istio, not kuma"),
        ({"prometheus": "prometheus:9090"}, "write a URL"),
        ({"prometheus": "monitoring/prometheus"}, "write a URL"),
        ({"prometheus": "ftp://prometheus"}, "write a URL"),
    ],
)
def test_refuses_meaningless_options(given: dict[str, Any], expected: str) -> None:
    """Exit code 2, before a cluster is examined."""
    with pytest.raises(InputError, match=expected):
        read_options(flags(**given), ISTIO)


PROMETHEUS = "https://me:pa55word@prometheus.example:9090"


def test_resume_accepts_prometheus_password(run: Path, record: RunRecord) -> None:
    """The record does not have the password; with it the same URL is the same option, and another URL is refused."""
    stored = without_password(PROMETHEUS)
    begun = BEGUN.model_copy(update={"prometheus": stored})
    record = record.model_copy(update={"cluster": begun})
    assert stored == "https://prometheus.example:9090"
    assert read_resumed_options(flags(prometheus=PROMETHEUS), record, run).prometheus == PROMETHEUS
    assert read_resumed_options(flags(), record, run).prometheus == stored
    with pytest.raises(
        InputError, match=r"--prometheus https://other\.example \(begun with https://prometheus\."
    ) as caught:
        read_resumed_options(flags(prometheus="https://me:pa55word@other.example"), record, run)
    assert "pa55word" not in str(caught.value)
