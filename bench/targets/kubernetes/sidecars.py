"""What the sidecars of a deployment say of themselves."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.errors import BadAnswerError
from bench.targets import proxies
from bench.targets.kubernetes.client import Cluster
from bench.targets.kubernetes.control_plane import ControlPlane


@dataclass(frozen=True, slots=True)
class Sidecars:
    """The sidecars of one deployment; `pods` are the names of the pods, by workload."""

    plane: ControlPlane
    cluster: Cluster
    namespace: str
    pods: Mapping[str, str]

    def requests(self) -> dict[str, dict[str, int]]:
        """Requests that each has sent on so far, by cluster."""
        return {
            name: proxies.requests_by_cluster(self.ask(name, proxies.CLUSTERS), self.ask(name, proxies.RETRIES))
            for name in self.pods
        }

    def tls(self, names: Iterable[str]) -> dict[str, dict[str, int]]:
        """The TLS counters of some."""
        return {name: proxies.tls_counters(self.ask(name, proxies.TLS)) for name in names}

    def own_ids(self) -> dict[str, tuple[str, ...]]:
        """The SPIFFE ids in each one's certificates."""
        return {name: proxies.identities(self.ask(name, proxies.CERTIFICATES)) for name in self.pods}

    def ask(self, name: str, path: str) -> Any:
        """The answer of someone's sidecar to a question on its admin interface."""
        answer = self.plane.admin(self.cluster, self.pods[name], path, namespace=self.namespace)
        try:
            return json.loads(answer)
        except (ValueError, RecursionError) as error:
            raise BadAnswerError(f"the sidecar of {self.pods[name]} answers {path} with what is no JSON") from error
