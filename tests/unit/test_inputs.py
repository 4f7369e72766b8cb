"""The files that a scenario names are read completely, from its own folder and from the run's."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from bench.meshes.resolved import find_problems
from bench.scenario.loader import find_inputs, find_stored_inputs, load_scenario
from tests.applications import read_bookinfo
from tests.policies import read_istio

STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec: {mtls: {mode: STRICT}}
"""
NOTHING = (
    '{"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "NAME"}, "spec": {}}'
)


def write(folder: Path, files: Mapping[str, str], *places: str) -> str:
    """A scenario next to folders of manifests, with a configuration that names these."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    configurations = [{"name": "istio", "mesh": "istio", "manifests": [*places]}]
    content = {"name": "mine", "title": "Mine", "configurations": configurations}
    (folder / "mine.yaml").write_text(yaml.safe_dump(content), "utf-8")
    return str(folder / "mine.yaml")


def policies(folders: Mapping[str, Path]) -> list[str]:
    """The names of the AuthorizationPolicies that a configuration with these folders has."""
    application = read_bookinfo("v3")
    found = read_istio([*folders.values()], application)
    return sorted(policy.metadata.name for policy in found.authorization_policies)


@pytest.mark.parametrize(
    "name", ["a.json", "a.JSON", "a.yml", "a.YAML", "team/a.json", "team/deep/er/a.yaml", "x.yaml/a.json"]
)
def test_applies_every_manifest_of_a_folder(tmp_path: Path, name: str) -> None:
    """Whatever the suffix, the case of its letters, and the depth; from the run's own folder, too."""
    path = write(tmp_path, {"policies/peer.yaml": STRICT, f"policies/{name}": NOTHING.replace("NAME", "a")}, "policies")
    assert find_problems(Path(path)) == ()
    scenario = load_scenario(path)
    inputs = find_inputs(scenario, path)
    assert policies(inputs.manifests) == ["a"]
    inputs.copy_to(tmp_path / "run")
    assert policies(find_stored_inputs(scenario, tmp_path / "run").manifests) == ["a"]


def test_keeps_files_of_the_same_name(tmp_path: Path) -> None:
    """A run's folder has both files."""
    files = {f"policies/{team}/allow.yaml": NOTHING.replace("NAME", team) for team in ("a", "b")}
    path = write(tmp_path, files, "policies")
    scenario = load_scenario(path)
    find_inputs(scenario, path).copy_to(tmp_path / "run")
    assert policies(find_stored_inputs(scenario, tmp_path / "run").manifests) == ["a", "b"]


@pytest.mark.parametrize(
    ("places", "message"),
    [
        (("policies", "policies/strict"), "policies/strict is inside policies, which is applied as a whole"),
        (("policies/strict", "policies"), "policies/strict is inside policies, which is applied as a whole"),
        (("policies", "policies"), "policies is named twice"),
    ],
)
def test_refuses_folder_inside_another(tmp_path: Path, places: tuple[str, str], message: str) -> None:
    """A folder is applied with everything below it, so the same policy would be applied twice."""
    path = write(tmp_path, {"policies/strict/a.json": NOTHING.replace("NAME", "a")}, *places)
    (problem,) = find_problems(Path(path))
    assert message in problem.message


def test_shipped_folder_is_not_merged_with_the_users(tmp_path: Path) -> None:
    """`istio` next to the scenario and the shipped `istio/mtls` stay separate in the run's folder."""
    path = write(tmp_path, {"istio/a.json": NOTHING.replace("NAME", "a")}, "istio", "istio/mtls")
    scenario = load_scenario(path)
    find_inputs(scenario, path).copy_to(tmp_path / "run")
    stored = find_stored_inputs(scenario, tmp_path / "run").manifests
    assert [file.name for file in stored["istio"].rglob("*")] == ["a.json"]
    assert [file.name for file in stored["istio/mtls"].rglob("*")] == ["peer-authentication.yaml"]


def test_finds_manifests_of_older_run(tmp_path: Path) -> None:
    """The folder of an older run has `istio/mtls` as a folder in a folder."""
    path = write(tmp_path, {}, "istio/mtls")
    older = tmp_path / "run" / "manifests" / "istio" / "mtls"
    older.mkdir(parents=True)
    assert find_stored_inputs(load_scenario(path), tmp_path / "run").manifests == {"istio/mtls": older}


def test_link_does_not_apply_folder_twice(tmp_path: Path) -> None:
    """A folder under a second name is the same folder."""
    path = write(tmp_path, {"policies/a.json": NOTHING.replace("NAME", "a")}, "policies", "also")
    (tmp_path / "also").symlink_to(tmp_path / "policies")
    (problem,) = find_problems(Path(path))
    assert "also is inside policies" in problem.message
