"""A cluster's sidecars: their stored configuration, and the data path in it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.envoy import admin as proxies
from bench.files.folders import find_shipped
from bench.targets.cluster.probes.sidecars import Sidecars, read_sidecars_path
from bench.verification.checks import read_meshed
from tests.sidecars import application_with, bootstrap_of

ADMIN = "type.googleapis.com/envoy.admin.v3"
APPLICATION = application_with("v3")
MESHED = read_meshed("istio", [find_shipped("manifests") / "istio" / "policies"], APPLICATION)
PODS = {name: f"{name}-v1-abcde" for name in ("productpage", "details", "reviews", "ratings", "locust")}


def dump(name: str) -> dict[str, Any]:
    """A sidecar's response to /config_dump, with a key that is not redacted."""
    resources = bootstrap_of("istio", name, APPLICATION, MESHED.policies)["static_resources"]
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


def test_stores_configuration_without_keys(tmp_path: Path) -> None:
    """One file for each sidecar, from one request; the section with certificates and keys is left out."""
    sidecars = Sidecars(SimpleNamespace(NAME="istio", admin=admin), SimpleNamespace(), "bookinfo", PODS)  # type: ignore[arg-type]
    path = read_sidecars_path(MESHED, sidecars, tmp_path / "proxies")
    kept = {file.stem: json.loads(file.read_text("utf-8")) for file in (tmp_path / "proxies").iterdir()}
    assert kept.keys() == PODS.keys()
    for name, written in kept.items():
        assert written["configs"] == dump(name)["configs"][:2]
    assert path.workers == dict.fromkeys(PODS, 2)


def test_reads_data_path_from_sidecars(tmp_path: Path) -> None:
    """A path for each hop and into each workload; a workload that serves no requests has none."""
    sidecars = Sidecars(SimpleNamespace(NAME="istio", admin=admin), SimpleNamespace(), "bookinfo", PODS)  # type: ignore[arg-type]
    path = read_sidecars_path(MESHED, sidecars, tmp_path / "proxies")
    assert [(way.caller, way.callee) for way in path.ways] == list(APPLICATION.calls)
    assert {inbound.workload: inbound.http_policies for inbound in path.inbounds} == {
        "productpage": 3, "details": 2, "reviews": 2, "ratings": 2,
    }  # fmt: skip
