"""Install Istio: istioctl renders, and meshbench applies, so that every object has the run's labels."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from bench.errors import ClusterError, DeployError, ErrorKind, InputError, RefusedError
from bench.files.folders import find_shipped
from bench.files.yaml_source import parse_generated, read_documents
from bench.k8s.client import Cluster, Object
from bench.k8s.wait import wait_for_rollout
from bench.meshes.cluster_protocol import InstallOptions
from bench.meshes.istio.istiod import ISTIOD
from bench.meshes.istio.policies import ROOT_NAMESPACE
from bench.system.cancellation import CancelToken, wait_until
from bench.system.processes import run_tool

_TIMEOUT_S: Final = 60.0

_API_VERSION: Final = "install.istio.io/v1alpha1"
_KIND: Final = "IstioOperator"

# Kinds that others need come first. Webhooks come last: until istiod serves them, they reject what they select.
_FIRST: Final = (
    "Namespace",
    "CustomResourceDefinition",
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "ConfigMap",
    "Secret",
    "Service",
)
_LAST: Final = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
# Namespaces that exist on every cluster.
_PREDEFINED: Final = frozenset({"", "default", "kube-system", "kube-public"})
_HOOKS: Final = "admissionregistration.k8s.io/v1"

Generate = Callable[[Iterable[str], InstallOptions], str]


def _run_istioctl(arguments: Iterable[str], options: InstallOptions) -> str:
    tool = shutil.which("istioctl")
    if tool is None:
        raise RefusedError(
            "istioctl is not on PATH, and Istio is installed with it; hint: install it in the version to measure: "
            "https://istio.io/latest/docs/setup/getting-started/"
        )
    try:
        ran = run_tool([tool, "manifest", "generate", *arguments], timeout_s=_TIMEOUT_S)
    except OSError as error:
        raise RefusedError(f"{tool} does not run: {error}") from error
    if ran.returncode != 0:
        raise _make_error(ran.stderr, options)
    return ran.stdout


def _make_error(stderr: str, options: InstallOptions) -> InputError | RefusedError:
    """Return the error for rejected values: InputError for the user's, RefusedError for meshbench's own."""
    reason = stderr.strip().rpartition("Error: ")[2] or "no message"
    given = [str(file) for file in options.values]
    given += [f"{name} {value}" for name in ("hub", "tag", "revision") if (value := getattr(options, name))]
    if given:
        return InputError(f"istioctl rejects these values ({', '.join(given)}): {reason}")
    return RefusedError(
        f"istioctl rejects manifests/istio/install.yaml: {reason}; hint: use another istioctl, older or newer"
    )


def render(options: InstallOptions, *, generate: Generate = _run_istioctl) -> tuple[Object, ...]:
    """Return the objects that istioctl renders offline, and the namespaces that they need, in the order to apply.

    `generate` runs istioctl. Raises RefusedError without istioctl, and InputError for values that it rejects.
    """
    files = (find_shipped("manifests") / "istio/install.yaml", *options.values, *options.equal)
    for file in options.values:
        _check_values(file)
    objects = parse_generated(generate(_arguments(files, options), options))
    return _add_namespaces(objects)


def _check_values(file: Path) -> None:
    """Reject documents of another kind, which istioctl would ignore without a message."""
    problems = [
        document.problem((), f"is no {_KIND}; Helm values stand in one below spec.values (apiVersion: {_API_VERSION})")
        for document in read_documents(file)
        if not isinstance(document.value, dict)
        or (document.value.get("apiVersion"), document.value.get("kind")) != (_API_VERSION, _KIND)
    ]
    if problems:
        raise InputError(problems)


def _arguments(files: Sequence[Path], options: InstallOptions) -> Iterator[str]:
    for file in files:
        yield from ("-f", str(file))
    for name in ("hub", "tag"):
        if getattr(options, name):
            yield from ("--set", f"{name}={getattr(options, name)}")
    if options.revision:
        yield from ("--revision", options.revision, "--set", f"values.defaultRevision={options.revision}")


def _add_namespaces(objects: Sequence[Object]) -> tuple[Object, ...]:
    """Add missing namespaces and sort. Raises InputError if istiod is in another namespace than expected."""
    namespaces = {one["metadata"].get("namespace", "") for one in objects if one["kind"] == "Deployment"}
    if ROOT_NAMESPACE not in namespaces:
        raise InputError(
            f"the values put istiod into {', '.join(sorted(namespaces)) or 'no namespace'}; it must be {ROOT_NAMESPACE}"
        )
    used = {one["metadata"].get("namespace", "") for one in objects} - _PREDEFINED
    known = {one["metadata"]["name"] for one in objects if one["kind"] == "Namespace"}
    missing = [_namespace(name) for name in sorted(used - known)]
    return tuple(sorted((*missing, *objects), key=_rank))


def _namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _rank(manifest: Object) -> int:
    kind = manifest["kind"]
    if kind in _LAST:
        return len(_FIRST) + 1
    return _FIRST.index(kind) if kind in _FIRST else len(_FIRST)


def wait_ready(cluster: Cluster, *, timeout_s: float, watch: CancelToken) -> None:
    """Wait until istiod is available and injects sidecars. Raises DeployError with the reason after `timeout_s`.

    The injection is tested with a dry run of a pod, which reaches the webhook only.
    """
    names = [one["metadata"]["name"] for one in _istiods(cluster)]
    if not names:
        raise DeployError(f"there is no istiod in {ROOT_NAMESPACE}: no Deployment with the label {ISTIOD}")
    wait_for_rollout(cluster, ROOT_NAMESPACE, names, timeout_s=timeout_s, watch=watch)
    for istiod in _istiods(cluster):
        _wait_for_injection(cluster, istiod, timeout_s=timeout_s, watch=watch)


def _istiods(cluster: Cluster) -> tuple[Object, ...]:
    return cluster.list("apps/v1", "Deployment", namespace=ROOT_NAMESPACE, labels=ISTIOD)


def _wait_for_injection(cluster: Cluster, istiod: Object, *, timeout_s: float, watch: CancelToken) -> None:
    pod = probe_pod(istiod["metadata"]["labels"].get("istio.io/rev", "default"))
    problem: list[str] = ["no response"]

    def is_injected() -> bool:
        problem[0] = _injection_problem(cluster, pod)
        return not problem[0]

    if not wait_until(is_injected, timeout_s=timeout_s, watch=watch, poll_s=cluster.timing.poll_s):
        raise DeployError(f"istiod runs, but pods get no sidecar after {timeout_s:.0f} s: {problem[0]}")


def _injection_problem(cluster: Cluster, pod: Object) -> str:
    """Return why istiod's webhooks do not work yet; empty if they do."""
    unsigned = [hook for hook in _validators(cluster) if not hook["clientConfig"].get("caBundle")]
    if unsigned:
        return f"istiod has not signed the webhook {unsigned[0]['name']}"
    try:
        created = cluster.apply(pod, dry_run=True)
    except ClusterError as error:
        if error.kind is not ErrorKind.UNAVAILABLE:  # not the webhook's failure
            raise
        return str(error)
    return "" if sidecars(created["spec"]) else "the webhook injected none"


def _validators(cluster: Cluster) -> Iterator[Object]:
    """Yield the webhooks that validate policies; without a signature they accept invalid ones."""
    for configuration in cluster.list(_HOOKS, "ValidatingWebhookConfiguration", labels=ISTIOD):
        yield from configuration.get("webhooks", [])


def sidecars(spec: Object) -> list[Object]:
    """Return the sidecars of a pod; native ones are init containers."""
    return [one for one in (*spec.get("initContainers", []), *spec["containers"]) if one["name"] == "istio-proxy"]


def probe_pod(revision: str) -> Object:
    """Return a pod that gets a sidecar by its own label, and so needs no namespace of the run."""
    labels = {} if revision == "default" else {"istio.io/rev": revision}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "meshbench-injection",
            "namespace": ROOT_NAMESPACE,
            "labels": {"sidecar.istio.io/inject": "true", **labels},
        },
        "spec": {"containers": [{"name": "probe", "image": "probe"}]},
    }
