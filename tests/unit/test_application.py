"""The application as its manifests describe it, and invalid manifests."""

import shutil
from pathlib import Path

import pytest

from bench.application.manifests import read_folders
from bench.errors import InputError
from bench.files.folders import find_shipped
from bench.meshes.resolved import list_mesh_settings
from tests.applications import read_bookinfo

BOOKINFO = find_shipped("manifests") / "bookinfo"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped manifests, for tests that break them."""
    return Path(shutil.copytree(BOOKINFO, tmp_path / "bookinfo"))


def change(folder: Path, name: str, old: str, new: str) -> int:
    """Replaces a line of a manifest; its number in the file."""
    path = folder / name
    lines = path.read_text("utf-8").splitlines()
    number = next(index for index, line in enumerate(lines) if old in line)
    lines[number] = lines[number].replace(old, new)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return number + 1


def list_problems(folder: Path) -> list[str]:
    """What of a folder no target takes, or else this machine does not, without the folder."""
    try:
        problems = read_bookinfo("v3", folder=folder).local_obstacles
    except InputError as error:
        problems = error.problems
    return [str(problem).replace(f"{folder}/", "").replace(str(folder), "folder") for problem in problems]


@pytest.mark.parametrize("reviews", ["v1", "v2", "v3"])
def test_deploys_one_version_of_reviews(reviews: str) -> None:
    """Four workloads, each with its own account, and the version of reviews that the scenario names."""
    application = read_bookinfo(reviews)
    assert {one.name: one.version for one in application.workloads} == {
        "productpage": "v1",
        "details": "v1",
        "reviews": reviews,
        "ratings": "v1",
    }
    assert {one.account for one in application.workloads} == {
        f"bookinfo-{name}" for name in ("productpage", "details", "reviews", "ratings")
    }
    assert {(service.name, service.port) for service in application.services} == {
        (one.name, 9080) for one in application.workloads
    }


def test_reviews_v1_does_not_call_ratings() -> None:
    """Reviews v1 has no stars and does not call ratings; v2 and v3 do."""
    calls = {version: set(read_bookinfo(version).calls) for version in ("v1", "v2", "v3")}
    assert calls["v2"] == calls["v3"] == calls["v1"] | {("reviews", "ratings")}
    assert ("locust", "productpage") in calls["v1"]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "details.yaml",
            "serviceAccountName:",
            "serviceAcountName:",
            "did you mean serviceAccountName?",
        ),
        (
            "details.yaml",
            "serviceAccountName: bookinfo-details",
            "serviceAccountName: bookinfo-detail",
            "no ServiceAccount",
        ),
        ("details.yaml", "kind: Deployment", "kind: Deploiment", "unknown kind 'Deploiment'; did you mean Deployment?"),
        ("details.yaml", "replicas: 1", "replicas: 2", "2 is not supported (supported: 1)"),
        ("details.yaml", "containerPort: 9080", "containerPort: '9080'", "must be a whole number, not '9080'"),
        ("services.yaml", " port: 9080", " port: 80", "all Services must have the same port"),
        ("services.yaml", "targetPort: 9080", "targetPort: 9081", "port 9081 is not the port of the pods"),
    ],
)
def test_reports_manifest_error_with_line(folder: Path, file: str, old: str, new: str, message: str) -> None:
    """A misspelt field, kind or account, and a value that processes cannot have, are reported with file and line."""
    line = change(folder, file, old, new)
    problems = list_problems(folder)
    assert any(problem.startswith(f"{file}:") and message in problem for problem in problems)
    assert any(abs(int(problem.split(":")[1]) - line) <= 3 for problem in problems)


def test_refuses_annotations_that_change_the_sidecar(folder: Path) -> None:
    """A pod that asks for a sidecar other than the local target's is refused."""
    label = "        app: details"
    change(folder, "details.yaml", label, f"{label}\n        sidecar.istio.io/inject: 'false'")
    (problem,) = list_mesh_settings(read_folders([folder]))
    assert "sidecar.istio.io/inject changes the sidecar" in problem.message


def test_reports_missing_workload(folder: Path) -> None:
    """A folder without one of Bookinfo's workloads is refused."""
    (folder / "reviews-v3.yaml").unlink()
    assert list_problems(folder) == ["folder: no workload of reviews in version v3"]
