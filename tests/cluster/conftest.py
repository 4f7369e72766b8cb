"""The lab that the cluster tests run on, reached as any remote cluster is: by a kubeconfig and a context's name."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.targets.kubernetes.client import Cluster
from bench.targets.kubernetes.kubeconfig import open_cluster

CONTEXT = "meshlab"


@pytest.fixture(scope="session")
def lab_kubeconfig() -> Path:
    """The running lab's kubeconfig."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    home = Path(os.environ.get("MESHLAB_HOME") or cache / "meshlab").expanduser()
    path = home / "run" / "kubeconfig"
    if not path.exists():
        pytest.skip(f"the lab is not up: there is no {path} (MESHLAB_HOME names another folder)")
    return path


@pytest.fixture(scope="session")
def cluster(lab_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The lab, open."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(lab_kubeconfig))
        with open_cluster(CONTEXT, private_folder=tmp_path_factory.mktemp("private")) as cluster:
            yield cluster
