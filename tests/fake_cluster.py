"""A cluster in memory, as far as ownership, lock and cleanup need one: namespaces are deleted step by step, finalizers
block deletions, and webhooks refuse what real ones would."""

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import count
from math import inf
from threading import RLock
from typing import Any, cast

from bench.errors import ClusterError, ErrorKind
from bench.k8s.client import Cluster, Object, Ref, ref_of
from bench.k8s.connection import KindInfo, kind_of_refusal
from bench.k8s.ownership import COMPONENT, MANAGED_BY, PRODUCT, RUN_ID
from bench.system.timing import Timing
from bench.targets.cluster.teardown.stages import is_custom

ADMISSION = "admissionregistration.k8s.io/v1"
EXTENSIONS = "apiextensions.k8s.io/v1"
WEBHOOK = "ValidatingWebhookConfiguration"
_NOW = "2026-11-23T03:15:00Z"
_UIDS = count(1)


def make_object(
    api_version: str, kind: str, name: str, *, namespace: str = "", run: str = "", component: str = "", **parts: Any
) -> Object:
    """Return an object, with the labels of `run` if one is given. `parts` are its spec, status and so on."""
    labels = {MANAGED_BY: PRODUCT, RUN_ID: run, COMPONENT: component} if run else {}
    metadata: dict[str, Any] = {"name": name, "uid": str(next(_UIDS)), "labels": labels}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **parts}


def make_webhook(name: str, service: tuple[str, str], *, run: str = "", component: str = "") -> Object:
    """Return a webhook configuration that calls a service (namespace, name) for all custom resources."""
    client = {"service": {"namespace": service[0], "name": service[1]}}
    hooks = [{"name": f"{name}.example.com", "clientConfig": client, "failurePolicy": "Fail"}]
    return make_object(ADMISSION, WEBHOOK, name, run=run, component=component, webhooks=hooks)


def _allow(_ref: Ref) -> None:
    """Refuse nothing."""


@dataclass(eq=False)
class FakeCluster:
    """A replacement for `Cluster`, without pauses between two requests.

    `meshes` are the namespaces of existing meshes, of which nothing else is there; `alive` are the services (namespace,
    name) that respond; `down` is how many of the next calls fail; `answers` is after how many calls all others fail;
    `denied` is the status of every refusal; `unlisted` are kinds that may not be listed; `log` are the requested
    deletions; `before_delete` may refuse one.
    """

    alive: set[tuple[str, str]] = field(default_factory=set)
    things: dict[Ref, Object] = field(default_factory=dict)
    log: list[tuple[Ref, int | None]] = field(default_factory=list)
    down: int = 0
    answers: float = inf
    denied: int = 0
    unlisted: frozenset[str] = frozenset()
    meshes: frozenset[str] = frozenset()
    before_delete: Callable[[Ref], None] = _allow
    context: str = "fake"
    server: str = "https://fake.invalid"
    timing: Timing = field(default_factory=lambda: Timing(poll_s=0.0, lock_poll_s=0.0, away_poll_s=0.0))
    _one_at_a_time: Any = field(default_factory=RLock)

    @property
    def cluster(self) -> Cluster:
        """This cluster under the type of a real one."""
        return cast("Cluster", self)

    def check_reachable(self) -> None:
        self._answer("reading /version")

    @property
    def version(self) -> str:
        self._answer("reading /version")
        return "v1.34.2"

    def add(self, things: Iterable[Object]) -> None:
        """Add existing objects unchanged."""
        self.things |= {ref_of(one): one for one in things}

    def apply(self, one: Object, *, dry_run: bool = False) -> Object:
        with self._one_at_a_time:
            self._answer(f"applying {ref_of(one)}")
            assert dry_run, "a run creates or changes its objects"
            return one

    def create(self, one: Object) -> Object:
        ref = ref_of(one)
        with self._one_at_a_time:
            self._answer(f"creating {ref}")
            if ref in self.things:
                raise ClusterError(f"creating {ref}: 409: already exists", kind=ErrorKind.CONFLICT)
            self._check_namespace(ref)
            return self._keep(one)

    def change(self, existing: Object, one: Object) -> Object:
        ref, metadata = ref_of(existing), existing["metadata"]
        with self._one_at_a_time:
            self._answer(f"changing {ref}")
            if self._versions(ref) != _versions_of(existing):
                raise ClusterError(f"changing {ref}: 409: was changed", kind=ErrorKind.CONFLICT)
            labels = {**metadata["labels"], **one["metadata"]["labels"]}
            return self._keep({**one, "metadata": {**metadata, "labels": labels}})

    def replace(self, one: Object) -> Object:
        ref = ref_of(one)
        self._answer(f"replacing {ref}")
        if ref not in self.things:
            raise ClusterError(f"replacing {ref}: 404: not found", kind=ErrorKind.NOT_FOUND)
        if self._versions(ref) != _versions_of(one):
            raise ClusterError(f"replacing {ref}: 409: was changed", kind=ErrorKind.CONFLICT)
        return self._keep(one)

    def get(self, ref: Ref) -> Object | None:
        with self._one_at_a_time:
            self._answer(f"reading {ref}")
            found = deepcopy(self.things.get(ref))
            self._advance()
            return found

    def list(self, api_version: str, kind: str, *, namespace: str = "", labels: str = "") -> tuple[Object, ...]:
        with self._one_at_a_time:
            return self._list(api_version, kind, namespace=namespace, labels=labels)

    def _list(self, api_version: str, kind: str, *, namespace: str, labels: str) -> tuple[Object, ...]:
        self._answer(f"listing {kind}")
        if kind in self.unlisted:
            raise ClusterError(f"listing {kind}: 403: forbidden", kind=ErrorKind.FORBIDDEN)
        if kind == "EndpointSlice":
            name = labels.partition("=")[2]
            return ({"endpoints": [{"conditions": {"ready": True}}]},) if (namespace, name) in self.alive else ()
        found = [
            deepcopy(one)
            for ref, one in self.things.items()
            if (ref.api_version, ref.kind) == (api_version, kind)
            and namespace in ("", ref.namespace)
            and _matches(one, labels)
        ]
        self._advance()
        return tuple(found)

    def kinds(self) -> tuple[KindInfo, ...]:
        self._answer("asking for kinds")
        kinds = {(ref.api_version, ref.kind): bool(ref.namespace) for ref in self.things}
        verbs = frozenset({"list", "delete"})
        return tuple(KindInfo(*kind, f"{kind[1].lower()}s", inside, verbs) for kind, inside in kinds.items())

    def delete(self, thing: Object, *, grace_s: int | None = None, unchanged: bool = False) -> None:
        with self._one_at_a_time:
            self._delete(thing, grace_s, unchanged=unchanged)

    def _delete(self, thing: Object, grace_s: int | None, *, unchanged: bool) -> None:
        ref = ref_of(thing)
        self._answer(f"deleting {ref}")
        self.before_delete(ref)
        self.log.append((ref, grace_s))
        found, wanted = self._versions(ref), _versions_of(thing)
        if found[0] != wanted[0] or (unchanged and found != wanted):
            return
        if refusal := self._refusal(ref):
            raise ClusterError(f"deleting {ref}: {refusal}", kind=ErrorKind.UNAVAILABLE)
        self._finish(ref)

    def _answer(self, what: str) -> None:
        self.answers -= 1
        if self.down or self.answers < 0:
            self.down = max(0, self.down - 1)
            raise ClusterError(f"{what}: no answer from {self.server}: connection refused", kind=ErrorKind.UNREACHABLE)
        if self.denied:
            text = f"{what}: {self.server} answered {self.denied}: you may not"
            raise ClusterError(text, kind=kind_of_refusal(self.denied))

    def _check_namespace(self, ref: Ref) -> None:
        if ref.namespace in ("", *self.meshes):
            return
        namespace = self.things.get(Ref("v1", "Namespace", ref.namespace))
        if namespace is None:
            raise ClusterError(f"creating {ref}: 404: namespace not found", kind=ErrorKind.NOT_FOUND)
        if namespace["metadata"].get("deletionTimestamp"):
            raise ClusterError(f"creating {ref}: 403: the namespace is being terminated", kind=ErrorKind.FORBIDDEN)

    def _versions(self, ref: Ref) -> tuple[str, str]:
        found = self.things.get(ref)
        return ("", "") if found is None else _versions_of(found)

    def _keep(self, one: Object) -> Object:
        kept = deepcopy(one)
        kept["metadata"].setdefault("uid", str(next(_UIDS)))
        kept["metadata"]["resourceVersion"] = str(next(_UIDS))
        self.things[ref_of(one)] = kept
        return deepcopy(kept)

    def _refusal(self, ref: Ref) -> str:
        """Return why a webhook refuses a deletion: a dangling one refuses everything, else a mesh in use."""
        if not is_custom(ref.api_version):
            return ""
        services = [hook["clientConfig"]["service"] for one in self._of(WEBHOOK) for hook in one["webhooks"]]
        if any((service["namespace"], service["name"]) not in self.alive for service in services):
            return "500: failed calling webhook"
        return "400: dataplanes are attached" if services and ref.kind == "Mesh" and self._of("Dataplane") else ""

    def _of(self, kind: str) -> tuple[Object, ...]:
        return tuple(one for ref, one in self.things.items() if ref.kind == kind)

    def _finish(self, ref: Ref) -> None:
        """Delete an object at once, except for namespaces and objects with finalizers."""
        one = self.things[ref]
        if ref.kind == "Namespace" or one["metadata"].get("finalizers"):
            one["metadata"].setdefault("deletionTimestamp", _NOW)
            return
        del self.things[ref]
        self.alive.discard((ref.namespace, ref.name))
        if ref.kind == "CustomResourceDefinition":
            self.things = {left: it for left, it in self.things.items() if left.kind != one["spec"]["names"]["kind"]}

    def _advance(self) -> None:
        """Delete the content of terminating namespaces, and then these, as controllers do between two requests."""
        for namespace in [ref for ref, one in self.things.items() if ref.kind == "Namespace" and _is_terminating(one)]:
            for ref in [ref for ref in self.things if ref.namespace == namespace.name]:
                if not self._refusal(ref):
                    self._finish(ref)
            finalizers = self.things[namespace]["metadata"].get("finalizers")
            if not finalizers and not any(ref.namespace == namespace.name for ref in self.things):
                del self.things[namespace]


def _versions_of(one: Object) -> tuple[str, str]:
    """The uid of an object, and the version in which it was read."""
    return one["metadata"]["uid"], one["metadata"].get("resourceVersion", "")


def _is_terminating(one: Object) -> bool:
    return bool(one["metadata"].get("deletionTimestamp"))


def _matches(one: Object, selector: str) -> bool:
    """Whether an object has the labels of a selector such as `a=b,c`."""
    labels = one["metadata"].get("labels") or {}
    parts = [part.partition("=") for part in selector.split(",") if part]
    return all(key in labels and (not equals or labels[key] == value) for key, equals, value in parts)
