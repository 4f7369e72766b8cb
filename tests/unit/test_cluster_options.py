"""What the command line says of a cluster: checked for a new run, held against its beginning for one that goes on."""

from pathlib import Path
from typing import Any

import pytest

from bench.cli.progress import PlainLines
from bench.errors import InputError
from bench.results.records import ClusterRecord, RunRecord
from bench.run.session import resumable, resume
from bench.scenario.loader import load_scenario
from bench.scenario.overrides import Overrides
from bench.targets.cluster.flags import ClusterFlags
from bench.targets.cluster.load.placement import place_load
from bench.targets.cluster.options import VALUES, ClusterOptions, read_options, resumed_options
from bench.targets.cluster.prometheus import without_password
from bench.targets.cluster.session import ClusterPlace
from tests.factory import Made, make_run
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


def flags(**given: Any) -> ClusterFlags:
    plain: dict[str, Any] = {name: () if name in ("image", "mesh_values") else "" for name in _TEXTS}
    switches = {"yes": False, "yes_this_cluster": None, "use_existing_mesh": False, "keep": False, "locust_ui": None}
    return ClusterFlags(**{"context": "lab", **plain, **switches, **given})


_TEXTS = ("image", "registry", "mesh_values", "mesh_hub", "mesh_tag", "mesh_revision", "prometheus")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that was begun on a cluster, with a values file."""
    folder = tmp_path / "run"
    (folder / VALUES).mkdir(parents=True)
    (folder / VALUES / "istio-1-small.yaml").write_text("small: true\n", "utf-8")
    return folder


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    return make_run(tmp_path / "made", Made()).record.model_copy(update={"scenario": ISTIO, "cluster": BEGUN})


def test_a_run_goes_on_as_it_was_begun(run: Path, record: RunRecord) -> None:
    """Images, values, mesh, Prometheus and the load's node come from its folder; the rest is said anew."""
    found = resumed_options(flags(yes=True, keep=True), record, run)
    assert found == options(
        agreed=True,
        keep=True,
        images=BEGUN.images,
        registry="m.example",
        mesh_values={"istio": (run / VALUES / "istio-1-small.yaml",)},
        hub="m.example/istio",
        prometheus="monitoring/prometheus:9090",
        load_node="b",
    )


def test_what_says_the_same_as_the_beginning_is_no_contradiction(run: Path, record: RunRecord, tmp_path: Path) -> None:
    """A shell's history may be repeated with --resume; a values file counts by what is in it."""
    (tmp_path / "other-name.yaml").write_text("small: true\n", "utf-8")
    same = flags(
        image=("load=m.example/locust:1",),
        registry="m.example",
        mesh_values=(str(tmp_path / "other-name.yaml"),),
        mesh_hub="m.example/istio",
        prometheus="monitoring/prometheus:9090",
    )
    assert resumed_options(same, record, run) == resumed_options(flags(), record, run)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"image": ("load=x.example/locust:2",)}, r"--image load=x\.example/locust:2 \(begun with m\.example/locust:1"),
        ({"image": ("bookinfo=x.example/b:2",)}, r"--image bookinfo=x\.example/b:2 \(begun with none\)"),
        ({"registry": "x.example"}, r"--registry x\.example \(begun with m\.example\)"),
        ({"mesh_hub": "x.example"}, r"--mesh-hub x\.example \(begun with m\.example/istio\)"),
        ({"mesh_tag": "1.30.0"}, r"--mesh-tag 1\.30\.0 \(begun with none\)"),
        ({"mesh_revision": "canary"}, r"--mesh-revision canary \(begun with none\)"),
        ({"use_existing_mesh": True}, r"--use-existing-mesh \(begun with one of its own\)"),
        ({"prometheus": "http://x.example"}, r"--prometheus http://x\.example \(begun with monitoring/prometheus:9090"),
    ],
)
def test_what_contradicts_the_beginning_is_refused(
    run: Path, record: RunRecord, given: dict[str, Any], told: str
) -> None:
    """With one sentence that names the option and what the run was begun with."""
    with pytest.raises(InputError, match=told) as refused:
        resumed_options(flags(**given), record, run)
    assert refused.value.exit_code == 2
    assert str(refused.value).startswith(f"{run}: a run is resumed as it was begun")


def test_other_values_for_the_mesh_are_refused(run: Path, record: RunRecord, tmp_path: Path) -> None:
    """The file's content is what counts, also under the name of the one that the run was begun with."""
    (tmp_path / "small.yaml").write_text("small: false\n", "utf-8")
    with pytest.raises(InputError, match=r"--mesh-values \(begun with istio-1-small\.yaml\)"):
        resumed_options(flags(mesh_values=(str(tmp_path / "small.yaml"),)), record, run)


def test_a_run_of_one_machine_is_not_resumed_on_a_cluster(run: Path, record: RunRecord) -> None:
    """Its numbers would not belong together."""
    with pytest.raises(InputError, match="was measured on one machine; resume it without --context"):
        resumed_options(flags(), record.model_copy(update={"cluster": None}), run)


@pytest.mark.parametrize(
    ("cluster", "status", "told"),
    [
        (BEGUN, "interrupted", "this run was begun on a cluster; say which with --context NAME"),
        (None, "interrupted", "this run was begun on one machine, without --context"),
        (None, "complete", "there is nothing to resume"),
    ],
)
def test_what_cannot_go_on_is_told_before_anybody_looks_at_a_place(
    tmp_path: Path, cluster: ClusterRecord | None, status: str, told: str
) -> None:
    """Nobody is asked about a cluster, or told of another run on this machine, for nothing."""
    made = make_run(tmp_path, Made(status=status))
    kind = "kubernetes" if cluster else "local"
    target = made.record.target.model_copy(update={"kind": kind})
    stored = made.record.model_copy(update={"cluster": cluster, "target": target})
    (made.path / "run.json").write_text(stored.model_dump_json(), "utf-8")
    with pytest.raises(InputError, match=told):
        resumable(made.path, on_cluster=cluster is None and status != "complete")


def _place(record: RunRecord, versions: dict[str, str], chosen: ClusterOptions) -> ClusterPlace:
    now = BEGUN.model_copy(update={"mesh_versions": versions})
    target = record.target.model_copy(update={"kind": "kubernetes"})
    return ClusterPlace(fake(), chosen, target, now, record.environment, (), place_load(()))


@pytest.mark.parametrize("versions", [{"istio": "1.30.0"}, {}])
def test_a_mesh_of_another_version_does_not_go_on_with_a_run(tmp_path: Path, versions: dict[str, str]) -> None:
    """The tool on PATH is what a run installs: half of the trials would measure something else."""
    made = make_run(tmp_path, Made(status="interrupted"))
    target = made.record.target.model_copy(update={"kind": "kubernetes"})
    stored = made.record.model_copy(update={"cluster": BEGUN, "target": target})
    (made.path / "run.json").write_text(stored.model_dump_json(), "utf-8")
    with pytest.raises(InputError, match=rf"istio: 1\.31\.0 / {versions.get('istio', 'unknown')}"):
        resume(made.path, _place(stored, versions, options()), progress=PlainLines)


def test_a_load_that_would_run_on_another_node_does_not_go_on_with_a_run(tmp_path: Path) -> None:
    """Its node may be gone, or closed to pods: the rest of the trials would not compare with those before."""
    made = make_run(tmp_path, Made(status="interrupted"))
    target = made.record.target.model_copy(update={"kind": "kubernetes"})
    begun = BEGUN.model_copy(update={"load_node": "a"})
    stored = made.record.model_copy(update={"cluster": begun, "target": target})
    (made.path / "run.json").write_text(stored.model_dump_json(), "utf-8")
    with pytest.raises(InputError, match="the load's node: a / b"):
        resume(made.path, _place(stored, {"istio": "1.31.0"}, options()), progress=PlainLines)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"image": ("details",)}, "write NAME=REF"),
        ({"mesh_values": ("nowhere.yaml",)}, "nowhere.yaml is no file"),
        ({"mesh_values": ("kuma=nowhere.yaml",)}, "this scenario has istio, not kuma"),
        ({"prometheus": "prometheus:9090"}, "write a URL"),
        ({"prometheus": "monitoring/prometheus"}, "write a URL"),
        ({"prometheus": "ftp://prometheus"}, "write a URL"),
    ],
)
def test_options_that_mean_nothing_are_refused_at_once(given: dict[str, Any], told: str) -> None:
    """With exit code 2, before anybody looks at a cluster."""
    with pytest.raises(InputError, match=told):
        read_options(flags(**given), ISTIO)


PROMETHEUS = "https://me:pa55word@prometheus.example:9090"


def test_a_password_of_prometheus_is_given_again_for_a_resume(run: Path, record: RunRecord) -> None:
    """The record does not have it; with it the same place is the same option, and another place is refused."""
    stored = without_password(PROMETHEUS)
    begun = BEGUN.model_copy(update={"prometheus": stored})
    record = record.model_copy(update={"cluster": begun})
    assert stored == "https://prometheus.example:9090"
    assert resumed_options(flags(prometheus=PROMETHEUS), record, run).prometheus == PROMETHEUS
    assert resumed_options(flags(), record, run).prometheus == stored
    with pytest.raises(
        InputError, match=r"--prometheus https://other\.example \(begun with https://prometheus\."
    ) as caught:
        resumed_options(flags(prometheus="https://me:pa55word@other.example"), record, run)
    assert "pa55word" not in str(caught.value)
