"""Sidecars of Bookinfo as the local target would configure them, with invented ports and unread certificates."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from bench.application.model import Application
from bench.envoy.addresses import Placement
from bench.envoy.certificates import Certificates
from bench.files.folders import find_shipped
from bench.meshes import MESHES
from bench.meshes.envoy_data_plane import EnvoyDataPlane
from bench.meshes.istio.data_plane import DATA_PLANE as ISTIO
from bench.meshes.kuma.data_plane import DATA_PLANE as KUMA
from bench.meshes.protocols import Policies, ProxyInputs
from bench.meshes.resolved import ResolvedConfiguration
from bench.meshes.rewriting import Namespaces
from bench.meshes.user_groups import user_groups_of
from bench.scenario.model import Configuration, Load
from tests.applications import read_bookinfo
from tests.policies import read_policies

ENVOYS: Mapping[str, EnvoyDataPlane] = {"istio": ISTIO, "kuma": KUMA}
PAGE = Path(__file__).resolve().parents[1] / "docs" / "local-target.md"
VERSIONS = ("v1", "v2", "v3")
SIDECARS = ("productpage-v1", "details-v1", "ratings-v1", "reviews-v1", "reviews-v2", "locust")


@cache
def application_with(*reviews: str) -> Application:
    """Read Bookinfo with these versions of reviews."""
    return read_bookinfo(reviews)


def configuration_with(
    mesh: str, *folders: str | Path, reviews: tuple[str, ...] = ("v3",), namespace: str = "bookinfo"
) -> ResolvedConfiguration:
    """Resolve a configuration with the manifests in these folders, deployed in this namespace."""
    application, chosen = application_with(*reviews), MESHES.get(mesh)
    paths = [find_shipped("manifests") / folder for folder in folders]
    policies = read_policies(mesh, paths, application) if chosen else None
    return ResolvedConfiguration(
        settings=Configuration.model_validate({"name": "tried", "mesh": mesh}),
        application=application,
        mesh=chosen,
        policies=policies,
        objects=(),
        untranslated=(),
        warnings=(),
        things=(),
        replacements=(),
        groups=user_groups_of(policies, application),
        load=Load(),
        equalise=(),
        namespaces=Namespaces({application.namespace: namespace}),
    )


def application_of(sidecar: str, *, routed: bool = False) -> Application:
    """Return Bookinfo with the version of reviews of a recorded sidecar (`reviews-v1`), or with all for routes."""
    name, _, version = sidecar.partition("-")
    return application_with(*VERSIONS) if routed else application_with(version if name == "reviews" else "v2")


def workload_of(sidecar: str, application: Application) -> str:
    """Return the name of a recorded sidecar's workload in the application."""
    names = [workload.name for workload in application.everyone]
    return sidecar if sidecar in names else sidecar.partition("-")[0]


def bootstrap_of(mesh: str, name: str, application: Application, policies: Policies) -> dict[str, Any]:
    """Build the configuration of one sidecar."""
    until, names = datetime(2030, 1, 1, tzinfo=UTC), policies.identities(application)
    certificates = Certificates(Path("/identities"), until, names, ENVOYS[mesh].wire)
    inputs = ProxyInputs(place(mesh, application), policies, certificates)
    given = ENVOYS[mesh].given(inputs, Path(f"/sockets/{name}.sock"))
    return ENVOYS[mesh].sidecar_bootstrap(application.workload(name), **given)


def place(mesh: str, application: Application) -> Placement:
    """Choose ports for a configuration with sidecars, without a look at this machine."""
    everyone = [one.name for one in application.everyone]
    ports = {base: {one: base + index for index, one in enumerate(everyone)} for base in (10000, 20000)}
    return Placement(application, serving=ports[10000], inbound=ports[20000], outbound=_outbound(mesh, application))


def _outbound(mesh: str, application: Application) -> Mapping[tuple[str, str], int]:
    services = [service.name for service in application.services]
    ways = product([one.name for one in application.everyone], services)
    shared = ENVOYS[mesh].outbound_capture == "shared"
    return {way: 30000 + (index // len(services) if shared else index) for index, way in enumerate(ways)}
