"""A cluster's sidecars: their stored configuration, and the data path in it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.envoy import admin as proxies
from bench.results.records import DataPath
from bench.system.timing import DEFAULT
from bench.targets.cluster.probes.prober import ClusterProber
from bench.verification.counts import policies_of
from bench.verification.prover import Prover
from tests.sidecars import bootstrap_of, configuration_with

ADMIN = "type.googleapis.com/envoy.admin.v3"
CONFIGURATION = configuration_with("istio", "istio/policies")
APPLICATION = CONFIGURATION.application
PODS = {name: f"{name}-v1-abcde" for name in ("productpage", "details", "reviews", "ratings", "locust")}


def dump(name: str) -> dict[str, Any]:
    """A sidecar's response to /config_dump, with a key that is not redacted."""
    resources = bootstrap_of("istio", name, APPLICATION, policies_of(CONFIGURATION))["static_resources"]
    secret = {"private_key": {"inline_string": "-----BEGIN PRIVATE KEY-----"}}
    return {
        "configs": [
            {
                "@type": f"{ADMIN}.ListenersConfigDump",
                "static_listeners": [{"listener": x} for x in resources["listeners"]],
            },
            {
                "@type": f"{ADMIN}.ClustersConfigDump",
                "static_clusters": [{"cluster": x} for x in resources["clusters"]],
            },
            {"@type": f"{ADMIN}.SecretsConfigDump", "dynamic_active_secrets": [{"secret": secret}]},
        ]
    }


def admin(_cluster: object, pod: str, path: str, *, namespace: str) -> str:
    """Envoy's admin interface in a pod: two workers, and nothing counted."""
    assert namespace == "bookinfo"
    if path == proxies.CONFIGURATION:
        return json.dumps(dump(pod.partition("-")[0]))
    return json.dumps({"stats": [{"name": "server.concurrency", "value": 2}] if path == proxies.WORKERS else []})


def list_pods(*_: str, namespace: str, labels: str) -> tuple[dict[str, Any], ...]:
    """The pods of the application, and that of the load."""
    names = [name for name in PODS if (name == "locust") == labels.endswith("=load")]
    return tuple({"metadata": {"name": PODS[name], "namespace": namespace, "labels": {"app": name}}} for name in names)


def read_path(kept: Path) -> DataPath:
    cluster, plane = SimpleNamespace(list=list_pods, timing=DEFAULT), SimpleNamespace(NAME="istio", admin=admin)
    prober = ClusterProber(cluster, APPLICATION, "", plane)  # type: ignore[arg-type]  # all that it uses
    path = Prover(prober, CONFIGURATION).data_path(kept)
    assert path is not None
    return path


def test_stores_configuration_without_keys(tmp_path: Path) -> None:
    """One file for each sidecar, from one request; the section with certificates and keys is left out."""
    path = read_path(tmp_path / "proxies")
    kept = {file.stem: json.loads(file.read_text("utf-8")) for file in (tmp_path / "proxies").iterdir()}
    assert kept.keys() == PODS.keys()
    for name, written in kept.items():
        assert written["configs"] == dump(name)["configs"][:2]
    assert path.workers == dict.fromkeys(PODS, 2)


def test_reads_data_path_from_sidecars(tmp_path: Path) -> None:
    """A path for each hop and into each workload; a workload that serves no requests has none."""
    path = read_path(tmp_path / "proxies")
    assert [(way.caller, way.callee) for way in path.ways] == list(APPLICATION.calls)
    assert {inbound.workload: inbound.http_policies for inbound in path.inbounds} == {
        "productpage": 3, "details": 2, "reviews": 2, "ratings": 2,
    }  # fmt: skip
