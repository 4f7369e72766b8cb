"""Check objects of an API server where they come in: what has another shape than Kubernetes gives it is one error.

Only what meshbench reads is checked. A null is as good as no field, and is removed, so that a reader asks once.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from bench.errors import BadAnswerError
from bench.system.redaction import one_line
from bench.units import parse_quantity

Object = dict[str, Any]
Check = Callable[[Any], bool]
# What a value is: checked by a function, a list, or a mapping by key. A key with ! has to be there; * is any key.
Shape = Check | list[Any] | Mapping[str, Any]

_DEEPEST: Final = 200  # schemas of custom resources nest deeply
_LONGEST_PATH: Final = 100
_LARGEST: Final = 1e18


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST


def _is_truth(value: Any) -> bool:
    return isinstance(value, bool)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _is_quantity(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    try:
        return 0 <= parse_quantity(str(value)) <= _LARGEST
    except ValueError:
        return False


_WANTED: Final[Mapping[Check, str]] = {
    _is_text: "text",
    _is_whole: "a whole number",
    _is_truth: "true or false",
    _is_mapping: "a mapping",
    _is_quantity: "a quantity",
}
_CONDITIONS: Final[Shape] = [
    {"type!": _is_text, "status!": _is_text, "reason": _is_text, "message": _is_text, "lastTransitionTime": _is_text}
]
_SELECTOR: Final[Shape] = {
    "matchLabels": {"*": _is_text},
    "matchExpressions": [{"key!": _is_text, "operator!": _is_text, "values": [_is_text]}],
}
_METADATA: Final[Shape] = {
    "name!": _is_text,
    "namespace": _is_text,
    "uid": _is_text,
    "resourceVersion": _is_text,
    "generation": _is_whole,
    "creationTimestamp": _is_text,
    "deletionTimestamp": _is_text,
    "deletionGracePeriodSeconds": _is_whole,
    "labels": {"*": _is_text},
    "annotations": {"*": _is_text},
    "finalizers": [_is_text],
    "ownerReferences": [{"kind!": _is_text, "name!": _is_text, "uid": _is_text, "controller": _is_truth}],
}
_AMOUNTS: Final[Shape] = {"cpu": _is_quantity, "memory": _is_quantity}
_RESOURCES: Final[Shape] = {"requests": _AMOUNTS, "limits": _AMOUNTS}
_CONTAINERS: Final[Shape] = [
    {"name!": _is_text, "image": _is_text, "restartPolicy": _is_text, "resources": _RESOURCES, "ports": [_is_mapping]}
]
_POD_SPEC: Final[Shape] = {
    "containers!": _CONTAINERS,
    "initContainers": _CONTAINERS,
    "nodeName": _is_text,
    "restartPolicy": _is_text,
    "nodeSelector": {"*": _is_text},
    "tolerations": [_is_mapping],
    "overhead": _AMOUNTS,
    "volumes": [_is_mapping],
}
_ENDED: Final[Shape] = {"exitCode!": _is_whole, "reason": _is_text, "message": _is_text}
_STATE: Final[Shape] = {
    "waiting": {"reason": _is_text, "message": _is_text},
    "running": _is_mapping,
    "terminated": _ENDED,
}
_STATUSES: Final[Shape] = [
    {
        "name!": _is_text,
        "ready!": _is_truth,
        "restartCount!": _is_whole,
        "image": _is_text,
        "imageID": _is_text,
        "state": _STATE,
        "lastState": _STATE,
    }
]
_COUNTS: Final = (
    "observedGeneration", "replicas", "updatedReplicas", "availableReplicas", "readyReplicas", "succeeded",
    "desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable",
)  # fmt: skip
_WORKLOAD: Final[Mapping[str, Any]] = {
    "spec!": {
        "replicas": _is_whole,
        "completions": _is_whole,
        "selector": _SELECTOR,
        "template!": {"metadata": {"labels": {"*": _is_text}}, "spec!": _POD_SPEC},
    },
    "status": {**dict.fromkeys(_COUNTS, _is_whole), "conditions": _CONDITIONS},
}
_SERVICE_OF: Final[Shape] = {"namespace!": _is_text, "name!": _is_text}
_WEBHOOKS: Final[Mapping[str, Any]] = {
    "webhooks": [
        {
            "name!": _is_text,
            "clientConfig!": {"service": _SERVICE_OF},
            "namespaceSelector": _SELECTOR,
            "objectSelector": _SELECTOR,
            "rules": [{"resources": [_is_text], "operations": [_is_text], "apiGroups": [_is_text]}],
        }
    ]
}
_SHAPES: Final[Mapping[tuple[str, str], Mapping[str, Any]]] = {
    ("", "Pod"): {
        "spec!": _POD_SPEC,
        "status": {
            "phase": _is_text,
            "reason": _is_text,
            "message": _is_text,
            "conditions": _CONDITIONS,
            "containerStatuses": _STATUSES,
            "initContainerStatuses": _STATUSES,
        },
    },
    ("", "Node"): {
        "spec": {"taints": [{"key!": _is_text, "effect!": _is_text, "value": _is_text}], "unschedulable": _is_truth},
        "status!": {
            "allocatable!": {"cpu!": _is_quantity, "memory!": _is_quantity, "pods!": _is_quantity},
            "capacity!": {"cpu!": _is_quantity, "memory!": _is_quantity},
            "conditions": _CONDITIONS,
            "nodeInfo!": dict.fromkeys(("kubeletVersion!", "osImage!", "kernelVersion!", "architecture!"), _is_text),
            "images": [{"names": [_is_text]}],
        },
    },
    ("", "Namespace"): {"spec": {"finalizers": [_is_text]}, "status": {"conditions": _CONDITIONS}},
    ("coordination.k8s.io", "Lease"): {
        "spec": {"holderIdentity": _is_text, "acquireTime": _is_text, "renewTime": _is_text}
    },
    ("", "Event"): {
        "type": _is_text,
        "reason": _is_text,
        "message": _is_text,
        "lastTimestamp": _is_text,
        "eventTime": _is_text,
        "involvedObject!": {"kind": _is_text, "name": _is_text},
    },
    **{("apps", kind): _WORKLOAD for kind in ("Deployment", "DaemonSet", "StatefulSet", "ReplicaSet")},
    ("batch", "Job"): _WORKLOAD,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): {
        "spec!": {"group!": _is_text, "names!": {"kind!": _is_text, "plural": _is_text}, "scope": _is_text},
        "status": {"conditions": _CONDITIONS},
    },
    **{
        ("admissionregistration.k8s.io", f"{hook}WebhookConfiguration"): _WEBHOOKS
        for hook in ("Mutating", "Validating")
    },
    ("apiregistration.k8s.io", "APIService"): {
        "spec!": {"service": _SERVICE_OF},
        "status": {"conditions": _CONDITIONS},
    },
    ("discovery.k8s.io", "EndpointSlice"): {"endpoints": [{"conditions": {"ready": _is_truth}}]},
    ("", "PersistentVolume"): {"spec": {"claimRef": {"namespace": _is_text, "name": _is_text}}},
    ("", "ConfigMap"): {"data": {"*": _is_text}},
    ("", "Secret"): {"data": {"*": _is_text}, "type": _is_text},
}
_REVIEW: Final[Shape] = {"status!": {"allowed!": _is_truth}}


def check_object(thing: Object, api_version: str, kind: str, what: str) -> Object:
    """Return an object of a kind, as it was answered to the request `what`, without its nulls. Raises BadAnswerError
    where it has not the shape of that kind."""
    group = api_version.rpartition("/")[0]  # a kind of another group may have the same name
    return _check(thing, {"metadata!": _METADATA, **_SHAPES.get((group, kind), {})}, f"{what}: {kind}")


def check_review(thing: Object, what: str) -> Object:
    """Return the answer to a SelfSubjectAccessReview. Raises BadAnswerError for anything else."""
    return _check(thing, _REVIEW, what)


def _check(thing: Object, shape: Shape, what: str) -> Object:
    try:
        clean: Object = _drop_nulls(thing, _DEEPEST)
        if wrong := _find_mismatch(clean, shape, ""):
            raise ValueError(wrong)
    except ValueError as error:
        raise BadAnswerError(f"{what}: not as Kubernetes has it: {one_line(str(error))}") from None
    return clean


def _drop_nulls(value: Any, depth: int) -> Any:
    if not isinstance(value, dict | list):
        return value
    if not depth:
        raise ValueError(f"it is nested more than {_DEEPEST} deep")
    if isinstance(value, dict):
        return {key: _drop_nulls(part, depth - 1) for key, part in value.items() if part is not None}
    return [_drop_nulls(part, depth - 1) for part in value]


def _find_mismatch(value: Any, shape: Shape, path: str) -> str:
    """Return the first part that has another shape; empty where none has."""
    if isinstance(shape, list):
        if not isinstance(value, list):
            return f"{path} is not a list"
        found = (_find_mismatch(part, shape[0], f"{path}[{index}]") for index, part in enumerate(value))
        return next(filter(None, found), "")
    if not isinstance(shape, Mapping):
        return "" if shape(value) else f"{path} is not {_WANTED[shape]}"
    if not isinstance(value, dict):
        return f"{path or 'it'} is not a mapping"
    return next(filter(None, (_find_in(value, key, part, path) for key, part in shape.items())), "")


def _find_in(value: Mapping[str, Any], key: str, shape: Shape, path: str) -> str:
    if key == "*":
        found = (_find_mismatch(part, shape, f"{path}.{name}"[:_LONGEST_PATH]) for name, part in value.items())
        return next(filter(None, found), "")
    name = key.removesuffix("!")
    here = f"{path}.{name}".removeprefix(".")
    if name not in value:
        return f"{here} is missing" if key.endswith("!") else ""
    return _find_mismatch(value[name], shape, here)
