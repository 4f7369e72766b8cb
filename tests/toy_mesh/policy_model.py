"""What the toy mesh's manifests mean: it has none, and so every request is allowed in plaintext."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.application.manifests import Kind, Manifest, Source
from bench.application.model import Application, Gateway, Service, Workload
from bench.envoy.wire import Mode
from bench.files.yaml_source import Document
from bench.meshes.probe import Outcome, Probe
from bench.meshes.protocols import Effect, PolicyReading
from bench.meshes.rewriting import Moved, Namespaces, Places
from bench.meshes.routing import Destination, Route

KINDS: Mapping[str, Kind[Any]] = {}
EFFECTS: Mapping[str, frozenset[Effect]] = {}
MOVABLE: frozenset[str] = frozenset()
ATTACHED: Mapping[str, Places] = {}


class ToyPolicies:
    """See `bench.meshes.protocols.Policies`."""

    def identities(self, _application: Application) -> Mapping[str, tuple[str, ...]]:
        return {}

    def mode(self, _workload: Workload) -> Mode:
        return "DISABLE"

    def encrypts(self, _application: Application, _workload: Workload) -> bool:
        return False

    def routes(self, application: Application, *, caller: Workload, service: Service) -> tuple[Route, ...]:  # noqa: ARG002
        return (Route((Destination(self.outbound_cluster(application, service), service, service.workloads),)),)

    def outcome(self, application: Application, *, caller: Workload | None, workload: Workload) -> Outcome:  # noqa: ARG002
        return Outcome(application.usual_request(workload.app).status)

    def outbound_cluster(self, _application: Application, service: Service) -> str:
        return f"to {service.name}"

    def probes(self, _application: Application) -> tuple[Probe, ...]:
        return ()


def convert(document: Document) -> Document:
    return document


def is_gateway_part(_manifest: Manifest) -> bool:
    return False


def read_gateway(_manifests: Sequence[Source[Any]], _application: Application) -> Gateway | None:
    return None


def read_policies(_manifests: Sequence[Source[Any]], _application: Application) -> PolicyReading:
    return PolicyReading(ToyPolicies())


def mesh_objects(_documents: Sequence[Document], _names: Namespaces) -> tuple[Moved, ...]:
    return ()
