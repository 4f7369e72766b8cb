"""Equalised settings: in the scenario, in local sidecars, on a cluster, and in proofs."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.analysis.conditions import find_run_differences
from bench.cli.plan_text import format_plan
from bench.envoy.config_dump import parse_bootstrap
from bench.errors import InputError
from bench.files.folders import find_shipped
from bench.files.yaml_source import read_documents
from bench.meshes import MESHES
from bench.meshes import equalise as on_cluster
from bench.meshes.cluster_protocol import InstallOptions
from bench.meshes.envoy_data_plane import equalise_bootstrap, set_workers
from bench.meshes.equalise import WORKERS, equal_evidence, equalise_wire
from bench.meshes.istio import ISTIO
from bench.meshes.istio import install as istio_install
from bench.meshes.kuma import KUMA
from bench.meshes.resolved import resolve_scenario
from bench.results.records import DataPath
from bench.scenario.loader import NO_OVERRIDES, load_scenario
from bench.scenario.model import Equal, Scenario
from bench.scenario.plan import make_plan
from bench.targets.cluster.options import read_options
from tests.data_paths import make_data_path, read_path
from tests.factory import RunSpec, make_run
from tests.moving import move_objects
from tests.policies import read_policies
from tests.sidecars import ENVOYS, application_with, bootstrap_of
from tests.validating import validate_file

ALL: tuple[Equal, ...] = ("tls", "workers", "retries")
TLS: tuple[Equal, ...] = ("tls",)
WORKERS_ONLY: tuple[Equal, ...] = ("workers",)
RETRIES: tuple[Equal, ...] = ("retries",)
POLICIES = {"istio": "istio/policies", "kuma": "kuma/policies"}
NEWEST = {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}


def sidecar(mesh: str, name: str = "productpage") -> dict[str, Any]:
    """A sidecar with policies, as the local target would build it."""
    application = application_with("v3")
    policies = read_policies(mesh, [find_shipped("manifests") / POLICIES[mesh]], application)
    return bootstrap_of(mesh, name, application, policies)


def equalised_sidecar(mesh: str, equalise: tuple[Equal, ...]) -> dict[str, Any]:
    """That sidecar with equalised settings."""
    own = MESHES[mesh].data_plane.inbound_cluster(application_with("v3").workload("productpage"))
    return equalise_bootstrap(sidecar(mesh), equalise, own=own)


def below(value: Any, key: str) -> list[Any]:
    """Everything that stands at a key, however deep."""
    if isinstance(value, dict):
        return [item for name, part in value.items() for item in ([part] if name == key else below(part, key))]
    return [item for part in value for item in below(part, key)] if isinstance(value, list) else []


# --- in the file -------------------------------------------------------------------------------------------------


def scenario_file(folder: Path, **changes: Any) -> Path:
    path = folder / "mine.yaml"
    text = (find_shipped("scenarios") / "smoke.yaml").read_text("utf-8")
    path.write_text(yaml.safe_dump({**yaml.safe_load(text), **changes}), "utf-8")
    return path


def test_equalises_nothing_by_default() -> None:
    """Meshes are compared as they are, unless the scenario has `equalise`."""
    assert load_scenario("istio-policies").equalise == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"equalise": ["tls", "tls"]}, "equalise: each setting may be named once: tls, tls"),
        (
            {"equalise": ["tls"], "reference": None, "configurations": [{"name": "a", "mesh": "none"}]},
            "equalise: has no effect, since no configuration has a mesh; leave it out",
        ),
    ],
)
def test_refuses_equalise_without_effect(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """A repeated key, or a scenario without meshes, is an error with file and line."""
    (problem,) = validate_file(scenario_file(tmp_path, **changes))
    assert str(problem).endswith(message)


def test_plan_prints_equalised_settings() -> None:
    """Before anything is measured; a scenario without `equalise` has no such line."""
    names = ("istio-vs-kuma-equalised", "istio-policies")
    found = {name: resolve_scenario(name, NO_OVERRIDES) for name in names}
    lines = {name: format_plan(one, make_plan(one.scenario, 1)) for name, one in found.items()}
    message = "equalised in all meshes: TLS 1.3 only, 2 workers in each sidecar, no retries between sidecars"
    assert message in lines["istio-vs-kuma-equalised"].splitlines()
    assert "alike" not in lines["istio-policies"]


# --- sidecars on this machine ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mesh", POLICIES)
def test_sidecar_is_unchanged_without_equalise(mesh: str) -> None:
    """Only settings that the scenario names are changed."""
    assert equalised_sidecar(mesh, ()) == equalised_sidecar(mesh, WORKERS_ONLY) == sidecar(mesh)
    assert set_workers(ENVOYS[mesh].options, ()) == list(ENVOYS[mesh].options)


@pytest.mark.parametrize("mesh", POLICIES)
def test_all_tls_contexts_have_one_version(mesh: str) -> None:
    """On both sides of a hop; names and certificates of a context stay."""
    contexts = below(equalised_sidecar(mesh, TLS), "common_tls_context")
    assert len(contexts) > 1
    for before, after in zip(below(sidecar(mesh), "common_tls_context"), contexts, strict=True):
        assert NEWEST.items() <= after["tls_params"].items()
        assert {**after, "tls_params": None} == {**before, "tls_params": None}


@pytest.mark.parametrize("mesh", POLICIES)
def test_equalised_sidecar_does_not_retry(mesh: str) -> None:
    """Retries towards other sidecars are removed; timeouts, and retries towards the sidecar's own application, stay."""
    before = read_path(mesh, {"productpage": parse_bootstrap(sidecar(mesh))})
    after = read_path(mesh, {"productpage": parse_bootstrap(equalised_sidecar(mesh, RETRIES))})
    assert all(way.retries for way in before.ways)
    assert not any(way.retries for way in after.ways)
    assert [way.timeout_s for way in after.ways] == [way.timeout_s for way in before.ways]
    assert after.inbounds == before.inbounds


def test_replaces_worker_option() -> None:
    """Envoy refuses an option that is given twice."""
    options = ("--concurrency", "7", "--drain-time-s", "30")
    assert set_workers(options, WORKERS_ONLY) == ["--concurrency", str(WORKERS), "--drain-time-s", "30"]


# --- on a cluster ------------------------------------------------------------------------------------------------


def scenario_of(*meshes: str, equalise: tuple[Equal, ...] = ALL) -> Scenario:
    configurations = [{"name": mesh, "mesh": mesh} for mesh in meshes]
    return Scenario.model_validate(
        {"name": "s", "title": "T", "configurations": configurations, "equalise": list(equalise)}
    )


def test_istio_is_installed_with_equalised_values() -> None:
    """TLS and retries come after the user's own values, so that they take precedence; workers are not a value."""
    asked: list[str] = []

    def rendered(arguments: Iterable[str], _: InstallOptions) -> str:
        asked.extend(arguments)
        return ""

    with pytest.raises(InputError, match="the values put istiod into no namespace"):
        istio_install.render(InstallOptions(equal=on_cluster.installation_values(ISTIO, ALL)), generate=rendered)
    assert [Path(name).name for name in asked[1::2]] == ["install.yaml", "equal-retries.yaml", "equal-tls.yaml"]
    assert on_cluster.installation_values(ISTIO, WORKERS_ONLY) == on_cluster.installation_values(KUMA, ALL) == ()


def test_kuma_gets_policies_in_the_runs_namespace() -> None:
    """Other applications of the mesh are not affected."""
    made = move_objects("kuma", [one.value for one in on_cluster.policy_objects(KUMA, ALL)], "bookinfo-7f3a")
    assert sorted((one["kind"], one["metadata"]["namespace"]) for one in made) == [
        ("MeshRetry", "bookinfo-7f3a"),
        ("MeshTLS", "bookinfo-7f3a"),
    ]
    assert on_cluster.policy_objects(ISTIO, ALL) == ()


@pytest.mark.parametrize("mesh", POLICIES)
def test_pods_have_worker_annotation(mesh: str) -> None:
    """Each mesh has an annotation for the number of workers."""
    (value,) = on_cluster.worker_annotations(MESHES[mesh], WORKERS_ONLY).values()
    assert str(WORKERS) in value
    assert on_cluster.worker_annotations(MESHES[mesh], (*TLS, *RETRIES)) == {}


@pytest.mark.parametrize("name", ["istio/equal-tls", "istio/equal-retries", "kuma/equal-tls", "kuma/equal-retries"])
def test_equalise_manifests_are_single_documents(name: str) -> None:
    """They ship, and are read like any manifest."""
    assert len(read_documents(find_shipped("manifests") / f"{name}.yaml")) == 1


def test_refuses_to_equalise_existing_istio() -> None:
    """The hint names what is possible; Kuma's policies do not affect other applications."""
    flags = {"context": "lab", "existing_mesh": True}
    message = (
        r"equalise: istio sets tls and retries for its whole mesh only, and --use-existing-mesh never changes it; hint:"
        r" set equalise to \[workers\], or let meshbench install istio"
    )
    with pytest.raises(InputError, match=message):
        read_options(flags, scenario_of("istio", "kuma"))
    assert read_options(flags, scenario_of("istio", equalise=("workers",))).existing_mesh
    assert read_options(flags, scenario_of("kuma")).existing_mesh


def test_does_not_compare_differently_equalised_runs(tmp_path: Path) -> None:
    """Their configurations have the same names, but differ."""
    record = make_run(tmp_path, RunSpec(repeats=1, warmup_s=1.0, duration_s=2.0)).record
    other = record.model_copy(update={"scenario": record.scenario.model_copy(update={"equalise": ("tls",)})})
    assert find_run_differences(record, record) == ()
    assert find_run_differences(record, other) == ("equalise: nothing / tls",)


# --- proven ------------------------------------------------------------------------------------------------------


def seen(path: DataPath | None, equalise: tuple[Equal, ...] = ALL) -> dict[str, tuple[bool, str]]:
    return {fact.name: (fact.ok, fact.seen) for fact in equal_evidence(path, equalise)}


def test_expects_equalised_tls_version() -> None:
    """The proofs of the wire expect the common version of TLS, also in a mesh with another default."""
    assert equalise_wire(MESHES["kuma"].data_plane.wire, TLS).tls == "TLSv1.3"
    assert equalise_wire(MESHES["kuma"].data_plane.wire, (*WORKERS_ONLY, *RETRIES)) == MESHES["kuma"].data_plane.wire


def test_proves_equalised_settings() -> None:
    """One piece of evidence for each setting, and none without a mesh."""
    path = make_data_path(tls="TLSv1.3", retries=0, workers=2)
    assert seen(path) == {
        "set alike: TLS": (True, "TLSv1.3"),
        "set alike: workers": (True, "2 in a sidecar"),
        "set alike: retries": (True, "none between sidecars"),
    }
    assert seen(path, ("tls",)).keys() == {"set alike: TLS"}
    assert seen(None) == seen(path, ()) == {}


def test_different_settings_fail_the_proof() -> None:
    """The evidence has the actual value."""
    assert seen(make_data_path(tls="TLSv1.2", retries=5, workers=8)) == {
        "set alike: TLS": (False, "TLSv1.2"),
        "set alike: workers": (False, "8 in a sidecar"),
        "set alike: retries": (False, "5"),
    }


def test_plaintext_has_no_tls_version() -> None:
    """Kuma without policies has no TLS that could differ; without a data path nothing is proven."""
    assert seen(make_data_path(), TLS) == {"set alike: TLS": (True, "no TLS")}
    nothing = DataPath(workers={}, ways=(), inbounds=())
    assert [ok for ok, _ in seen(nothing).values()] == [False, False, False]
