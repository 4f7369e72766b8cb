"""A mesh that is added by the registry alone is run by the real command, with proxies that are no Envoys."""

from pathlib import Path

import pytest
import yaml

from bench.results.store import StoredRun, read_run
from tests import command

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SCENARIO = {
    "name": "toy",
    "title": "What does the toy mesh cost?",
    "reference": "baseline",
    "repeats": 1,
    "quick": True,
    "load": {"users": 2, "warmup": "1s", "duration": "2s"},
    "configurations": [{"name": "baseline", "mesh": "none"}, {"name": "toy", "mesh": "toy"}],
}
ADD = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from bench.meshes import MESHES
from tests.toy_mesh import TOY
MESHES["toy"] = TOY
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    """A run of both configurations."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy.yaml").write_text(yaml.safe_dump(SCENARIO), "utf-8")
    output = folder / "results"
    finished = command.run("run", "--scenario", folder / "toy.yaml", output=output, driver=ADD)
    assert finished.code in command.MEASURED, finished.output
    return read_run(next(output.glob("[!.]*/")))


def test_proofs_of_a_mesh_without_envoy_hold(toy: StoredRun) -> None:
    """Every request passed both proxies of each hop, as the proxies themselves counted."""
    (trial,) = [one for one in toy.trials if one.record.configuration == "toy"]
    assert trial.proof is not None
    assert trial.proof.failures == ()
    names = {evidence.name for evidence in trial.proof.after}
    assert {"through sidecars", "protocol between sidecars"} <= names
    assert all("toy" in evidence.seen for evidence in trial.proof.before if evidence.name == "through sidecars")


def test_unknown_mesh_is_refused_without_its_entry(toy: StoredRun, output: Path) -> None:
    """Without the entry the same scenario is an error with file and line."""
    finished = command.call("validate", toy.path.parents[1] / "toy.yaml", output=output)
    assert finished.code == 2
    assert "configurations[1].mesh: unknown mesh 'toy'" in finished.err
