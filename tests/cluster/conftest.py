"""The lab that the cluster tests run on, reached as a remote cluster is: by a kubeconfig and a context's name."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.k8s.client import Cluster
from bench.k8s.kubeconfig import open_cluster
from tests.cluster import job, lab
from tests.cluster.foreign_mesh import install_istio
from tests.cluster.lab import CONTEXT
from tests.cluster.lab_images import build_bookinfo

__all__ = ["CONTEXT"]

_KUMA = tuple(f"docker.io/kumahq/kuma-{name}:2.14.3" for name in ("cp", "dp", "init"))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Use the lab in every test. The first test waits for the lab, and where it has to be built, for much longer than a
    test may take."""
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    items.sort(key=lambda item: item in here and _uses_existing(item))
    here.sort(key=_uses_existing)
    if here and (why := lab.missing()):
        for item in here:
            item.add_marker(pytest.mark.skip(why))
    elif here and not lab.kubeconfig().exists():
        here[0].add_marker(pytest.mark.timeout(lab.UP_TIMEOUT_S))


def _uses_existing(item: pytest.Item) -> bool:
    return "existing_istio" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session", autouse=True)
def lab_kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kubeconfig of the lab, with our images in it."""
    with lab.running(tmp_path_factory.mktemp("lab") / "up.log") as kubeconfig:
        build_bookinfo()
        yield kubeconfig


@pytest.fixture(scope="session")
def cluster(lab_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The lab, open."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(lab_kubeconfig))
        with open_cluster(CONTEXT, private_folder=tmp_path_factory.mktemp("private")) as cluster:
            yield cluster


@pytest.fixture(scope="session")
def kumactl(cluster: Cluster) -> str:
    """kumactl, if it is installed and Kuma's images are loaded."""
    tool = shutil.which("kumactl")
    if tool is None:
        pytest.skip("kumactl is not on PATH")
    nodes = cluster.list("v1", "Node")
    loaded = {name for node in nodes for image in node["status"]["images"] for name in image.get("names") or ()}
    missing = sorted(set(_KUMA) - loaded)
    if missing:
        pytest.skip(f"not loaded in the lab: {', '.join(missing)}")
    return tool


@pytest.fixture(scope="session")
def existing_istio(cluster: Cluster) -> Iterator[None]:
    """Istio that was installed before the run, for the jobs that run with `--use-existing-mesh`. Tests that use it come
    after those that install one, since meshbench refuses to install a second one."""
    with job.assert_unchanged(cluster), install_istio(cluster):
        yield


@pytest.fixture(scope="module")
def as_before_all(cluster: Cluster) -> Iterator[None]:
    """Check after the module's tests that nothing of ours is on the lab, and that nothing else was created, deleted or
    changed."""
    with job.assert_unchanged(cluster):
        yield


@pytest.fixture
def as_before(request: pytest.FixtureRequest, cluster: Cluster, as_before_all: None) -> Iterator[None]:
    """Check the same after each test; what a failed test leaves is removed before the next one, which does not fail for
    it."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        job.remove_dead_runs(cluster)
