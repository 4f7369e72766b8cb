"""A cluster in memory for the pre-flight, and its objects."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from bench.check_result import CheckResult
from bench.errors import ClusterError, ErrorKind
from bench.k8s.client import Cluster, Object, Ref
from bench.k8s.connection import KindInfo
from bench.meshes.resolved import resolve_scenario
from bench.scenario.overrides import Overrides
from bench.system.timing import DEFAULT, Timing
from bench.targets.cluster.options import ClusterOptions
from bench.targets.cluster.preflight.examination import Examination, examine_cluster


@dataclass
class FakeCluster:
    """A replacement for `Cluster` in the pre-flight. `refuse` are verbs and resources."""

    objects: Mapping[str, tuple[Object, ...]] = field(default_factory=dict)
    refuse: frozenset[tuple[str, str]] = frozenset()
    context: str = "lab"
    cluster_name: str = "lab"
    server: str = "https://127.0.0.1:6443"
    version: str = "v1.34.2"
    dry_run_error: ClusterError | None = None
    kind_infos: tuple[KindInfo, ...] = ()
    named: Mapping[str, Object] = field(default_factory=dict)
    timing: Timing = DEFAULT

    def allowed(self, verb: str, resource: str, **_: str) -> bool:
        return (verb, resource) not in self.refuse

    def list(self, _: str, kind: str, **__: str) -> tuple[Object, ...]:
        if ("list", kind) in self.refuse:
            raise ClusterError(f"listing {kind}: forbidden", kind=ErrorKind.FORBIDDEN)
        return self.objects.get(kind, ())

    def get(self, ref: Ref) -> Object | None:
        return self.named.get(ref.name) or next(iter(self.objects.get(ref.kind, ())), None)

    def kinds(self) -> tuple[KindInfo, ...]:
        return self.kind_infos

    def apply(self, one: Object, *, dry_run: bool = False) -> Object:
        assert dry_run
        if self.dry_run_error:
            raise self.dry_run_error
        return one


def fake(**options: Any) -> Cluster:
    return cast("Cluster", FakeCluster(**options))


def node(name: str = "one", *, cpu: str = "4", memory: str = "8Gi", pods: str = "110", **more: Any) -> Object:
    conditions = [{"type": "Ready", "status": more.get("ready", "True")}]
    conditions += [{"type": kind, "status": "True"} for kind in more.get("pressure", ())]
    spec = {"unschedulable": more.get("cordoned", False), "taints": more.get("taints", [])}
    status = {
        "allocatable": {"cpu": cpu, "memory": memory, "pods": pods},
        "conditions": conditions,
        "nodeInfo": {"kubeletVersion": more.get("kubelet", "v1.34.2")},
        "images": [{"names": list(names)} for names in more.get("images", ())],
    }
    return {"metadata": {"name": name}, "spec": spec, "status": status}


def container(cpu: str = "", memory: str = "", **more: Any) -> Object:
    requests = {what: size for what, size in (("cpu", cpu), ("memory", memory)) if size}
    return {"name": "c", "image": "i", "resources": {"requests": requests}, **more}


def pod(*containers: Object, init: tuple[Object, ...] = (), at: str = "one", phase: str = "Running") -> Object:
    spec = {"nodeName": at, "containers": list(containers), "initContainers": list(init)}
    return {"metadata": {"name": "p", "namespace": "shop"}, "spec": spec, "status": {"phase": phase}}


def options(**changes: Any) -> ClusterOptions:
    return replace(ClusterOptions(context="lab"), **changes)


def examine_two_nodes(*pods: Object, **chosen: Any) -> Examination:
    """Run the pre-flight of nodes `a` and `b` with these pods of others, for the smallest scenario."""
    cluster = fake(objects={"Node": (node("a"), node("b")), "Pod": pods})
    return examine_cluster(cluster, resolve_scenario("smoke", Overrides()), options(**chosen))


def find_results(name: str, examined: Examination) -> list[CheckResult]:
    """Return the results of one check."""
    return [result for result in examined.findings if result.name == name]
