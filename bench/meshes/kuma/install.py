"""Installing Kuma: kumactl renders, meshbench applies, so that every object carries the run's labels."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bench.errors import ClusterError, DeployError, InputError, Problem, RefusedError
from bench.files.folders import shipped
from bench.files.yaml_source import Document, did_you_mean, generated_documents, read_documents
from bench.k8s.client import Cluster, Object
from bench.k8s.wait import rollout
from bench.meshes.kuma.kuma_cp import CONTROL_PLANE
from bench.meshes.kuma.namespacing import BASE_MESH
from bench.meshes.kuma.naming import ROOT_NAMESPACE as NAMESPACE
from bench.meshes.protocols import InstallOptions
from bench.system.cancellation import Watch, wait_until
from bench.system.processes import run_tool

SERIES: Final = "2.14"  # in 3.0 neither our values nor the older form of permissions mean what they say

_SOURCE: Final = "https://kuma.io/docs/latest/introduction/install/"
_IMAGES: Final = ("controlPlane.image", "dataPlane.image", "dataPlane.initImage")
_TIMEOUT_S: Final = 60.0
_SERVER_ERROR: Final = 500
_HOOK: Final = "helm.sh/hook"
# Kinds without a namespace, although the chart gives one to some of their objects.
_CLUSTER_WIDE: Final = frozenset(
    {
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "MutatingWebhookConfiguration",
        "Namespace",
        "PriorityClass",
        "ValidatingWebhookConfiguration",
    }
)


def render(options: InstallOptions) -> tuple[Object, ...]:
    """What kumactl renders, offline, in its own order: the namespace first, the webhooks last.

    Raises RefusedError without kumactl, or with one of another series; InputError for values that it does not take.
    """
    if options.values:
        (chart,) = generated_documents(_kumactl(["--dump-values"], InstallOptions()))
        _check_values(options.values, chart)
    return read_rendered(_kumactl([*_arguments(options)], options), any_series=bool(options.tag))


def _kumactl(arguments: Sequence[str], options: InstallOptions) -> str:
    """What kumactl says about an installation, without a connection to any cluster."""
    tool = shutil.which("kumactl")
    if tool is None:
        raise RefusedError(f"kumactl is not on PATH, and Kuma is installed with it: {_SOURCE}, version {SERIES}")
    # Without --no-config it would write a folder into the user's home.
    argv = [tool, "--no-config", "install", "control-plane", "--without-kubernetes-connection", *arguments]
    try:
        ran = run_tool(argv, timeout_s=_TIMEOUT_S)
    except OSError as error:
        raise RefusedError(f"{tool} does not run: {error}") from error
    if ran.returncode != 0:
        raise _refusal(ran.stderr, options)
    return ran.stdout


def _check_values(files: Sequence[Path], chart: Object) -> None:
    """A value that the chart does not have would be passed over without a word."""
    documents = [document for file in files for document in read_documents(file)]
    if problems := [problem for document in documents for problem in _unknown(document, chart)]:
        raise InputError(problems)


def _unknown(document: Document, chart: Object) -> Iterator[Problem]:
    """The first two levels: below them charts have labels, limits and such, whose names are free."""
    if not isinstance(document.value, dict):
        yield document.problem((), "is no mapping; values of Kuma's chart are, as `kumactl install` takes them")
        return
    for key, value in document.value.items():
        known = chart.get(key)
        if key not in chart:
            yield document.problem((key,), f"is no value of Kuma's chart{did_you_mean(key, chart)}")
        elif isinstance(value, dict) and isinstance(known, dict) and known:
            for name in value.keys() - known.keys():
                yield document.problem((key, name), f"is no value of Kuma's chart{did_you_mean(name, known)}")


def _arguments(options: InstallOptions) -> Iterator[str]:
    yield f"--namespace={NAMESPACE}"
    for file in (shipped("manifests") / "kuma/install.yaml", *options.values):
        yield f"--values={file}"
    if options.hub:
        yield f"--set=global.image.registry={options.hub}"
    if options.tag:
        yield from (f"--set={image}.tag={options.tag}" for image in _IMAGES)


def _refusal(said: str, options: InstallOptions) -> InputError | RefusedError:
    """Whose mistake it is: the values of the user, or a version that does not know ours."""
    reason = said.strip().rpartition("Error: ")[2] or "without a word"
    given = [str(file) for file in options.values]
    given += [f"{name} {value}" for name in ("hub", "tag") if (value := getattr(options, name))]
    if given:
        return InputError(f"kumactl does not take these values ({', '.join(given)}): {reason}")
    return RefusedError(f"kumactl does not take manifests/kuma/install.yaml; is it {SERIES}? {reason}")


def read_rendered(text: str, *, any_series: bool = False) -> tuple[Object, ...]:
    """The objects of kumactl's output, without the chart's hooks: those are jobs for Helm.

    Raises RefusedError for images of a series that is not known to work, InputError where the control plane is not
    where meshbench looks for it.
    """
    things = tuple(_tidy(thing) for thing in generated_documents(text) if not _is_hook(thing))
    planes = [thing for thing in things if (thing["kind"], thing["metadata"]["name"]) == ("Deployment", CONTROL_PLANE)]
    if [plane["metadata"].get("namespace") for plane in planes] != [NAMESPACE]:
        raise InputError(f"the values make no Deployment {CONTROL_PLANE} in {NAMESPACE}, and meshbench needs it there")
    tag = planes[0]["spec"]["template"]["spec"]["containers"][0]["image"].rpartition(":")[2]
    if not any_series and not tag.startswith(f"{SERIES}."):
        raise RefusedError(f"kumactl installs Kuma {tag}; meshbench's values and policies are for {SERIES}: {_SOURCE}")
    return things


def _is_hook(thing: Object) -> bool:
    return _HOOK in (thing["metadata"].get("annotations") or {})


def _tidy(thing: Object) -> Object:
    if thing["kind"] not in _CLUSTER_WIDE:
        return thing
    metadata = {key: value for key, value in thing["metadata"].items() if key != "namespace"}
    return {**thing, "metadata": metadata}


def wait_ready(cluster: Cluster, *, timeout_s: float, watch: Watch) -> None:
    """Waits until the control plane is available and its webhooks answer. Raises DeployError with the reason if not.

    The Mesh, as a dry run, asks both of them. A pod cannot: without the Mesh, which comes after this, it is refused.
    """
    rollout(cluster, NAMESPACE, (CONTROL_PLANE,), timeout_s=timeout_s, watch=watch)
    said: list[str] = ["nothing"]

    def answers() -> bool:
        said[0] = _webhook_trouble(cluster)
        return not said[0]

    if not wait_until(answers, timeout_s=timeout_s, watch=watch, poll_s=cluster.timing.poll_s):
        raise DeployError(
            f"Kuma's control plane runs, but its webhooks do not answer after {timeout_s:.0f} s: {said[0]}"
        )


def _webhook_trouble(cluster: Cluster) -> str:
    try:
        cluster.apply(BASE_MESH, dry_run=True)
    except ClusterError as error:
        if error.status < _SERVER_ERROR:  # not the webhook's failure
            raise
        return str(error)
    return ""
