"""Two builds in one scenario: images and objects of the application in single configurations."""

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from click.testing import CliRunner

from bench.analysis.night import read_conditions
from bench.cli.main import cli
from bench.errors import InputError
from bench.files.folders import find_shipped
from bench.k8s.client import Object
from bench.k8s.ownership import Owner
from bench.meshes.control_planes import CONTROL_PLANES
from bench.meshes.resolved import ResolvedScenario, resolve_scenario
from bench.results.store import read_run, write_record
from bench.scenario.contrasts import are_equal
from bench.scenario.loader import NO_OVERRIDES
from bench.scenario.versions import override_images
from bench.system.cancellation import CancelToken
from bench.system.journal import Journal
from bench.targets.cluster.options import read_options
from bench.targets.cluster.preflight.capacity import build_manifests, plan_trials
from bench.targets.cluster.preflight.permissions import needs_of
from bench.targets.cluster.probes.injection import find_other_images
from bench.targets.cluster.trial_manifests import TrialManifests
from bench.verification.evidence import state_evidence
from bench.verification.prober import State
from tests.factory import RunSpec, make_run
from tests.fake_cluster import FakeCluster
from tests.shown_cluster import options

OWN = "example.org/reviews:2"
MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "limits"}, "data": {"depth": "3"}}

Resolve = Callable[..., ResolvedScenario]


def shipped(name: str) -> dict[str, Any]:
    """The first object in a file of the application."""
    text = (find_shipped("manifests") / "bookinfo" / f"{name}.yaml").read_text("utf-8")
    return cast("dict[str, Any]", next(one for one in yaml.safe_load_all(text) if one))


@pytest.fixture
def resolve(tmp_path: Path) -> Resolve:
    """Resolve a scenario of these configurations, next to folders of these objects."""

    def write(*configurations: dict[str, Any], **folders: list[dict[str, Any]]) -> ResolvedScenario:
        for name, objects in folders.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "own.yaml").write_text(yaml.safe_dump_all(objects), "utf-8")
        known = {"name": "builds", "title": "Two builds", "reference": "old", "configurations": list(configurations)}
        known["design"] = "sequential"  # so that objects of two configurations have the same names
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"schema_version": 1, **known}), "utf-8")
        return resolve_scenario(str(tmp_path / "mine.yaml"), NO_OVERRIDES)

    return write


def configuration(name: str, mesh: str = "none", **more: Any) -> dict[str, Any]:
    return {"name": name, "mesh": mesh, **more}


def apply_to_fake(manifests: TrialManifests, tmp_path: Path) -> dict[str, Object]:
    """Apply a configuration to a cluster in memory, and return its Deployments, ConfigMaps and pods by name."""
    fake = FakeCluster(meshes=frozenset(plane.NAMESPACE for plane in CONTROL_PLANES.values()))
    with closing(Journal(tmp_path / manifests.configuration.name)) as journal:
        owner = Owner(fake.cluster, "run-1", journal, CancelToken())
        for space in manifests.namespaces():
            owner.apply(space, "namespace")
        owner.apply_all(manifests.policies, "policy")
        for component, things in manifests.pods(None).items():
            owner.apply_all(things, component)
    return {f"{thing['kind']} {thing['metadata']['name']}": thing for thing in fake.things.values()}


def image_in(applied: dict[str, Object], name: str) -> str:
    return str(applied[f"Deployment {name}"]["spec"]["template"]["spec"]["containers"][0]["image"])


# --- images ---------------------------------------------------------------------------------------------------


def test_each_configuration_gets_its_images(resolve: Resolve, tmp_path: Path) -> None:
    """On a cluster an image of a configuration is in that configuration, and nowhere else."""
    resolved = resolve(configuration("old"), configuration("new", images={"reviews": OWN}))
    found = build_manifests(resolved, options())
    old, new = (apply_to_fake(found[name], tmp_path) for name in ("old", "new"))
    assert image_in(new, "reviews-v3") == OWN
    assert image_in(old, "reviews-v3") == shipped("reviews-v3")["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image_in(old, "details-v1") == image_in(new, "details-v1")


@pytest.mark.parametrize(
    ("run", "own", "expected"),
    [
        ({"reviews": "a"}, {"reviews": "b"}, {"reviews": "b"}),
        ({"reviews": "a", "load": "l"}, {"app": "b"}, {"load": "l", "app": "b"}),
        ({"app": "a"}, {"reviews": "b"}, {"app": "a", "reviews": "b"}),
        ({"app": "a", "gateway": "g"}, {}, {"app": "a", "gateway": "g"}),
    ],
)
def test_own_images_win_over_those_of_the_run(
    run: dict[str, str], own: dict[str, str], expected: dict[str, str]
) -> None:
    """`--image` never undoes a comparison, not even for one service of an application that a configuration replaces."""
    assert override_images(run, own, "app") == expected


@pytest.mark.parametrize(
    ("images", "mesh", "message"),
    [
        ({"reviewz": OWN}, "none", "did you mean reviews?"),
        ({"load": OWN}, "none", "the load is the same for all configurations; set application.images.load"),
        ({"sidecar": OWN}, "none", "needs a mesh, whose proxy it replaces"),
    ],
)
def test_refuses_meaningless_images(resolve: Resolve, images: dict[str, str], mesh: str, message: str) -> None:
    """A name without an image is an error with its line: it would change nothing."""
    with pytest.raises(InputError) as caught:
        resolve(configuration("old"), configuration("new", mesh, images=images))
    (problem,) = caught.value.problems
    assert problem.path == f"configurations[1].images.{next(iter(images))}"
    assert message in problem.message
    assert problem.line > 1


def test_istios_sidecars_get_the_image_by_annotation(resolve: Resolve, tmp_path: Path) -> None:
    """Pods of the application and the load have Istio's annotation; a reference without a registry is made whole, since
    Istio would ignore it."""
    images = {"sidecar": "example.org/proxyv2:2"}
    found = build_manifests(
        resolve(configuration("old", "istio"), configuration("new", "istio", images=images)), options()
    )
    old, new = (apply_to_fake(found[name], tmp_path) for name in ("old", "new"))
    key = "sidecar.istio.io/proxyImage"
    assert new["Pod locust"]["metadata"]["annotations"][key] == "example.org/proxyv2:2"
    assert new["Deployment details-v1"]["spec"]["template"]["metadata"]["annotations"][key] == "example.org/proxyv2:2"
    assert key not in old["Deployment details-v1"]["spec"]["template"]["metadata"]["annotations"]
    short = CONTROL_PLANES["istio"].sidecar_image("proxyv2:2", "shop")
    assert short is not None
    assert short.annotations == {key: "docker.io/library/proxyv2:2"}


def test_kumas_sidecars_get_the_image_by_a_patch(resolve: Resolve, tmp_path: Path) -> None:
    """Kuma reads a ContainerPatch in its own namespace, which is applied with the policies, before there are pods."""
    images = {"sidecar": "example.org/kuma-dp:2"}
    found = build_manifests(
        resolve(configuration("old", "kuma"), configuration("new", "kuma", images=images)), options()
    )
    applied = apply_to_fake(found["new"], tmp_path)
    (patch,) = (thing for name, thing in applied.items() if name.startswith("ContainerPatch"))
    assert patch["metadata"]["namespace"] == "kuma-system"
    assert patch["spec"] == {"sidecarPatch": [{"op": "replace", "path": "/image", "value": '"example.org/kuma-dp:2"'}]}
    noted = applied["Deployment details-v1"]["spec"]["template"]["metadata"]["annotations"]
    assert noted["kuma.io/container-patches"] == patch["metadata"]["name"]
    assert found["old"].policies == ()


def test_refuses_sidecar_image_by_mesh(resolve: Resolve, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mesh that sets the image of all sidecars only is named, with what to do instead."""
    scenario = resolve(configuration("old"), configuration("new", "kuma", images={"sidecar": OWN})).scenario
    monkeypatch.setattr(CONTROL_PLANES["kuma"], "sidecar_image", lambda *_: None)
    with pytest.raises(InputError, match=r"new: images\.sidecar: kuma cannot set .* --mesh-values kuma=FILE"):
        read_options({"context": "lab"}, scenario)


def test_permission_for_patches_is_needed_with_own_images_only() -> None:
    """A run without images of sidecars needs no more rights than before."""
    without = {need.resource for need in needs_of(["kuma"], install=False, own_images=())}
    assert {need.resource for need in needs_of(["kuma"], install=False, own_images=("kuma",))} - without == {
        "containerpatches"
    }


def test_own_images_are_pulled_before_the_run(resolve: Resolve) -> None:
    """The pre-flight and `plan` list the images of every configuration, sidecars included."""
    resolved = resolve(
        configuration("old", "istio"),
        configuration("new", "istio", images={"reviews": OWN, "sidecar": "example.org/p:2"}),
    )
    listed = plan_trials(build_manifests(resolved, options()).values()).images
    assert {OWN, "example.org/p:2"} <= set(listed)


def test_sidecar_with_another_image_is_a_failed_proof() -> None:
    """A control plane that ignores the image would make an A/A comparison of two builds."""
    containers = [{"name": "app", "image": "a"}, {"name": "proxy", "image": "example.org/p:1"}]
    pods = [{"metadata": {"name": "web", "namespace": "shop"}, "spec": {"containers": containers}}]
    others = find_other_images(pods, "proxy", "example.org/p:2")
    assert others == ("example.org/p:1 in web",)
    assert find_other_images(pods, "proxy", "example.org/p:1") == ()
    seen = State(sidecar="proxy", pods=1, image="example.org/p:2", other_images=others)
    facts = {one.name: one.ok for one in state_evidence(seen, (), meshed=True)}
    assert not facts["sidecar image"]
    same = {one.name: one.ok for one in state_evidence(replace(seen, other_images=()), (), meshed=True)}
    assert same["sidecar image"]
    assert "sidecar image" not in {one.name for one in state_evidence(State(pods=1), (), meshed=True)}


# --- objects --------------------------------------------------------------------------------------------------


def changed_reviews() -> dict[str, Any]:
    """The Deployment of reviews with a smaller limit, which mounts a ConfigMap."""
    thing = shipped("reviews-v3")
    container = thing["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [*container.get("env", []), {"name": "DEPTH", "value": "3"}]
    return thing


def test_object_replaces_the_applications_in_one_configuration(resolve: Resolve, tmp_path: Path) -> None:
    """An object of the same kind and name takes the place of the application's, another is added."""
    resolved = resolve(configuration("old"), configuration("new", manifests=["mine"]), mine=[changed_reviews(), MAP])
    found = build_manifests(resolved, options())
    old, new = (apply_to_fake(found[name], tmp_path) for name in ("old", "new"))
    assert {"name": "DEPTH", "value": "3"} in new["Deployment reviews-v3"]["spec"]["template"]["spec"]["containers"][0][
        "env"
    ]
    assert new["ConfigMap limits"]["metadata"]["namespace"] == found["new"].namespace
    assert "ConfigMap limits" not in old
    assert set(new) - set(old) == {"ConfigMap limits"}


@pytest.mark.parametrize("mesh", ["istio", "kuma"])
def test_folder_of_a_mesh_may_hold_replacements(resolve: Resolve, mesh: str, tmp_path: Path) -> None:
    """With a mesh, a folder has policies, and objects that replace some of the application."""
    text = "\n---\n".join(
        path.read_text("utf-8") for path in sorted((find_shipped("manifests") / mesh / "policies").rglob("*.yaml"))
    )
    policies = [one for one in yaml.safe_load_all(text) if one]
    resolved = resolve(
        configuration("old", mesh, manifests=[f"{mesh}/policies"]),
        configuration("new", mesh, manifests=["mine"]),
        mine=[*policies, changed_reviews()],
    )
    old, new = (build_manifests(resolved, options())[name] for name in ("old", "new"))
    assert {one["metadata"]["name"] for one in old.policies} == {one["metadata"]["name"] for one in new.policies}
    assert "DEPTH" in json.dumps(apply_to_fake(new, tmp_path)["Deployment reviews-v3"])


def test_gateway_and_additions_live_in_folders_of_their_own(resolve: Resolve, tmp_path: Path) -> None:
    """A folder of core kinds alone is the application's; a gateway's objects are still the mesh's."""
    resolved = resolve(
        configuration("old", "istio", manifests=["istio/gateway"]),
        configuration("new", "istio", manifests=["istio/gateway", "mine"]),
        mine=[MAP],
    )
    old, new = (build_manifests(resolved, options())[name] for name in ("old", "new"))
    assert new.gateway == old.gateway
    assert set(apply_to_fake(new, tmp_path)) - set(apply_to_fake(old, tmp_path)) == {"ConfigMap limits"}


@pytest.mark.parametrize(
    ("thing", "mesh", "message"),
    [
        ({**MAP, "kind": "Secret"}, "none", "only the application's own manifests may have Secrets"),
        ({**MAP, "kind": "Role"}, "none", "a configuration without a mesh takes no Role"),
        ({**MAP, "date": {}}, "none", "is no field of a ConfigMap"),
        ({**MAP, "metadata": {"name": "x", "namespace": "kube-system"}}, "none", "the application is in bookinfo"),
    ],
)
def test_refuses_objects_that_a_configuration_cannot_have(
    resolve: Resolve, thing: dict[str, Any], mesh: str, message: str
) -> None:
    """What would not be applied, or would leave the run's namespaces, is an error with file and line."""
    with pytest.raises(InputError) as caught:
        resolve(configuration("old"), configuration("new", mesh, manifests=["mine"]), mine=[thing])
    (problem,) = caught.value.problems
    assert message in problem.message
    assert problem.file.endswith("mine/own.yaml")
    assert problem.line >= 1


def test_refuses_an_object_in_two_folders(resolve: Resolve) -> None:
    """Of two objects that replace the same one, none would be known to win."""
    with pytest.raises(InputError, match=r"ConfigMap limits is already in .*a/own\.yaml:"):
        resolve(configuration("old"), configuration("new", manifests=["a", "b"]), a=[MAP], b=[MAP])


def test_refuses_mesh_settings_in_a_replacement(resolve: Resolve) -> None:
    """An annotation that changes the sidecar would be a difference that nothing proves."""
    thing = changed_reviews()
    thing["spec"]["template"]["metadata"]["annotations"] = {"sidecar.istio.io/proxyCPU": "1"}
    with pytest.raises(InputError, match="changes the sidecar"):
        resolve(configuration("old"), configuration("new", "istio", manifests=["mine"]), mine=[thing])


# --- what people see ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize("own", [{"images": {"reviews": OWN}}, {"manifests": ["mine"]}])
def test_needs_a_cluster(resolve: Resolve, tmp_path: Path, command: str, own: dict[str, Any]) -> None:
    """On one machine processes have no images and no objects: without them, both sides would be the same build."""
    resolve(configuration("old"), configuration("new", **own), mine=[MAP])
    result = CliRunner().invoke(cli, [command, "--scenario", str(tmp_path / "mine.yaml")])
    assert isinstance(result.exception, InputError)
    assert str(result.exception).startswith("new with ")
    assert str(result.exception).endswith("of its own; needs a cluster: run with --context NAME")


def test_validate_lists_what_is_replaced(resolve: Resolve, tmp_path: Path) -> None:
    """Every replaced and added object is listed with its file and line, and with the one whose place it takes."""
    resolve(
        configuration("old"),
        configuration("new", images={"details": OWN}, manifests=["mine"]),
        mine=[changed_reviews(), MAP],
    )
    lines = CliRunner().invoke(cli, ["validate", str(tmp_path / "mine.yaml")]).output.splitlines()
    lines = lines[lines.index("images of single configurations:") :]
    assert lines[:2] == ["images of single configurations:", f"  new: details is {OWN}"]
    assert lines[3].startswith("  new: Deployment reviews-v3 of mine/own.yaml:2 in place of bookinfo/reviews-v3.yaml:")
    assert lines[4].startswith("  new: ConfigMap limits of mine/own.yaml:")
    assert lines[4].endswith(" is added")


def test_equal_builds_are_one_configuration_twice(resolve: Resolve) -> None:
    """Two configurations are equal only if their images and folders are, too."""
    scenario = resolve(
        configuration("old", images={"reviews": OWN}),
        configuration("same", images={"reviews": OWN}),
        configuration("other", images={"reviews": "example.org/reviews:3"}),
        configuration("object", images={"reviews": OWN}, manifests=["mine"]),
        mine=[MAP],
    ).scenario
    assert are_equal(scenario, "old", "same")
    assert not are_equal(scenario, "old", "other")
    assert not are_equal(scenario, "old", "object")


def test_fingerprint_has_images_only_when_given(tmp_path: Path) -> None:
    """A night without images has the fingerprint of the nights before there were any."""
    run = make_run(tmp_path, RunSpec())
    before = read_conditions(run)["scenario"]
    scenario = run.record.scenario
    first, *others = scenario.configurations
    own = first.model_copy(update={"images": {"reviews": OWN}})
    changed = scenario.model_copy(update={"configurations": (own, *others)})
    write_record(run.path / "run.json", run.record.model_copy(update={"scenario": changed}))
    assert read_conditions(read_run(run.path))["scenario"] != before
