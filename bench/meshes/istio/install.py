"""Installing Istio: istioctl renders, meshbench applies, so that every object carries the run's labels."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from bench.errors import ClusterError, DeployError, InputError, RefusedError
from bench.files.folders import shipped
from bench.files.yaml_source import generated_documents, read_documents
from bench.k8s.client import Cluster, Object
from bench.k8s.wait import rollout
from bench.meshes.istio.istiod import ISTIOD
from bench.meshes.istio.policies import ROOT_NAMESPACE
from bench.meshes.protocols import InstallOptions
from bench.system.cancellation import Watch, wait_until
from bench.system.processes import run_tool

_TIMEOUT_S: Final = 60.0
_SERVER_ERROR: Final = 500

_API_VERSION: Final = "install.istio.io/v1alpha1"
_KIND: Final = "IstioOperator"

# What later kinds need comes first. Webhooks last: until istiod answers them they would refuse what they select.
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
# Namespaces that a cluster has without us.
_GIVEN: Final = frozenset({"", "default", "kube-system", "kube-public"})
_HOOKS: Final = "admissionregistration.k8s.io/v1"

Generate = Callable[[Iterable[str], InstallOptions], str]


def _rendered(arguments: Iterable[str], options: InstallOptions) -> str:
    tool = shutil.which("istioctl")
    if tool is None:
        raise RefusedError(
            "istioctl is not on PATH, and Istio is installed with it: "
            "https://istio.io/latest/docs/setup/getting-started/, in the version that is to be measured"
        )
    try:
        ran = run_tool([tool, "manifest", "generate", *arguments], timeout_s=_TIMEOUT_S)
    except OSError as error:
        raise RefusedError(f"{tool} does not run: {error}") from error
    if ran.returncode != 0:
        raise _refusal(ran.stderr, options)
    return ran.stdout


def _refusal(said: str, options: InstallOptions) -> InputError | RefusedError:
    """Whose mistake it is: the values of the user, or a version that does not know ours."""
    reason = said.strip().rpartition("Error: ")[2] or "without a word"
    given = [str(file) for file in options.values]
    given += [f"{name} {value}" for name in ("hub", "tag", "revision") if (value := getattr(options, name))]
    if given:
        return InputError(f"istioctl does not take these values ({', '.join(given)}): {reason}")
    return RefusedError(f"istioctl does not take manifests/istio/install.yaml; is it too old or too new? {reason}")


def render(options: InstallOptions, *, generate: Generate = _rendered) -> tuple[Object, ...]:
    """What istioctl renders, offline, with the namespaces that it takes for granted; in the order to apply.

    Raises RefusedError without istioctl, InputError for values that it does not take. `generate` is what runs it.
    """
    files = (shipped("manifests") / "istio/install.yaml", *options.values, *options.equal)
    for file in options.values:
        _check_values(file)
    objects = generated_documents(generate(_arguments(files, options), options))
    return _complete(objects)


def _check_values(file: Path) -> None:
    """Istioctl passes over a document of another kind without a word."""
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


def _complete(objects: Sequence[Object]) -> tuple[Object, ...]:
    """With namespaces, in order. Raises InputError where istiod is not where meshbench looks for it."""
    homes = {thing["metadata"].get("namespace", "") for thing in objects if thing["kind"] == "Deployment"}
    if ROOT_NAMESPACE not in homes:
        raise InputError(
            f"the values put istiod into {', '.join(sorted(homes)) or 'nowhere'}; it must be {ROOT_NAMESPACE}"
        )
    named = {thing["metadata"].get("namespace", "") for thing in objects} - _GIVEN
    known = {thing["metadata"]["name"] for thing in objects if thing["kind"] == "Namespace"}
    spaces = [_namespace(name) for name in sorted(named - known)]
    return tuple(sorted((*spaces, *objects), key=_rank))


def _namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def _rank(thing: Object) -> int:
    kind = thing["kind"]
    if kind in _LAST:
        return len(_FIRST) + 1
    return _FIRST.index(kind) if kind in _FIRST else len(_FIRST)


def wait_ready(cluster: Cluster, *, timeout_s: float, watch: Watch) -> None:
    """Waits until istiod is available and gives a pod its sidecar. Raises DeployError with the reason if it does not.

    The pod is a dry run: it exists for the webhook only.
    """
    names = [one["metadata"]["name"] for one in _istiods(cluster)]
    if not names:
        raise DeployError(f"there is no istiod in {ROOT_NAMESPACE}: no Deployment with the label {ISTIOD}")
    rollout(cluster, ROOT_NAMESPACE, names, timeout_s=timeout_s, watch=watch)
    for istiod in _istiods(cluster):
        _wait_for_injection(cluster, istiod, timeout_s=timeout_s, watch=watch)


def _istiods(cluster: Cluster) -> tuple[Object, ...]:
    return cluster.list("apps/v1", "Deployment", namespace=ROOT_NAMESPACE, labels=ISTIOD)


def _wait_for_injection(cluster: Cluster, istiod: Object, *, timeout_s: float, watch: Watch) -> None:
    pod = probe_pod(istiod["metadata"]["labels"].get("istio.io/rev", "default"))
    said: list[str] = ["nothing"]

    def injected() -> bool:
        said[0] = _injection_trouble(cluster, pod)
        return not said[0]

    if not wait_until(injected, timeout_s=timeout_s, watch=watch, poll_s=cluster.timing.poll_s):
        raise DeployError(f"istiod runs, but pods get no sidecar after {timeout_s:.0f} s: {said[0]}")


def _injection_trouble(cluster: Cluster, pod: Object) -> str:
    """Why istiod's webhooks do not work yet; empty when they do."""
    unsigned = [hook for hook in _validators(cluster) if not hook["clientConfig"].get("caBundle")]
    if unsigned:
        return f"istiod has not signed the webhook {unsigned[0]['name']}"
    try:
        made = cluster.apply(pod, dry_run=True)
    except ClusterError as error:
        if error.status < _SERVER_ERROR:  # not the webhook's failure
            raise
        return str(error)
    return "" if sidecars(made["spec"]) else "the webhook left a pod without one"


def _validators(cluster: Cluster) -> Iterator[Object]:
    """The webhooks by which istiod checks policies: until they are signed, a wrong one passes."""
    for configuration in cluster.list(_HOOKS, "ValidatingWebhookConfiguration", labels=ISTIOD):
        yield from configuration.get("webhooks", [])


def sidecars(spec: Object) -> list[Object]:
    """The sidecars of a pod: native ones are init containers."""
    return [one for one in (*spec.get("initContainers", []), *spec["containers"]) if one["name"] == "istio-proxy"]


def probe_pod(revision: str) -> Object:
    """A pod that asks for a sidecar by its own label, so that no namespace of ours has to be there."""
    asks = {} if revision == "default" else {"istio.io/rev": revision}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "meshbench-injection",
            "namespace": ROOT_NAMESPACE,
            "labels": {"sidecar.istio.io/inject": "true", **asks},
        },
        "spec": {"containers": [{"name": "probe", "image": "probe"}]},
    }
