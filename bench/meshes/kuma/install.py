"""Install Kuma: kumactl renders, and meshbench applies, so that every object has the run's labels."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bench.errors import ClusterError, DeployError, ErrorKind, InputError, Problem, RefusedError
from bench.files.folders import find_shipped
from bench.files.yaml_source import Document, format_suggestion, parse_generated, read_documents
from bench.k8s.client import Cluster, Object
from bench.k8s.wait import wait_for_rollout
from bench.meshes.cluster_protocol import InstallOptions
from bench.meshes.kuma.kuma_cp import CONTROL_PLANE
from bench.meshes.kuma.namespacing import BASE_MESH
from bench.meshes.kuma.naming import ROOT_NAMESPACE as NAMESPACE
from bench.system.cancellation import CancelToken, wait_until
from bench.system.processes import run_tool

SERIES: Final = "2.14"  # 3.0 has other values, and not the older form of permissions

_SOURCE: Final = "https://kuma.io/docs/latest/introduction/install/"
_IMAGES: Final = ("controlPlane.image", "dataPlane.image", "dataPlane.initImage")
_TIMEOUT_S: Final = 60.0
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
    """Return the objects that kumactl renders offline, in its own order: the namespace first, the webhooks last.

    Raises RefusedError without kumactl or with one of another series, and InputError for values that it rejects.
    """
    if options.values:
        (chart,) = parse_generated(_run_kumactl(["--dump-values"], InstallOptions()))
        _check_values(options.values, chart)
    return read_rendered(_run_kumactl([*_arguments(options)], options), any_series=bool(options.tag))


def _run_kumactl(arguments: Sequence[str], options: InstallOptions) -> str:
    """Return kumactl's output for an installation, without a connection to any cluster."""
    tool = shutil.which("kumactl")
    if tool is None:
        raise RefusedError(
            f"kumactl is not on PATH, and Kuma is installed with it; hint: install {SERIES} from {_SOURCE}"
        )
    # Without --no-config it would create a folder in the user's home.
    argv = [tool, "--no-config", "install", "control-plane", "--without-kubernetes-connection", *arguments]
    try:
        ran = run_tool(argv, timeout_s=_TIMEOUT_S)
    except OSError as error:
        raise RefusedError(f"{tool} does not run: {error}") from error
    if ran.returncode != 0:
        raise _make_error(ran.stderr, options)
    return ran.stdout


def _check_values(files: Sequence[Path], chart: Object) -> None:
    """Reject values that the chart does not have, which kumactl would ignore without a message."""
    documents = [document for file in files for document in read_documents(file)]
    if problems := [problem for document in documents for problem in _unknown_values(document, chart)]:
        raise InputError(problems)


def _unknown_values(document: Document, chart: Object) -> Iterator[Problem]:
    """Yield unknown values of the first two levels; below them charts have labels, limits and other free names."""
    if not isinstance(document.value, dict):
        yield document.problem((), "is no mapping; hint: write values of Kuma's chart, as for `kumactl install`")
        return
    for key, value in document.value.items():
        known = chart.get(key)
        if key not in chart:
            yield document.problem((key,), f"is no value of Kuma's chart{format_suggestion(key, chart)}")
        elif isinstance(value, dict) and isinstance(known, dict) and known:
            for name in value.keys() - known.keys():
                yield document.problem((key, name), f"is no value of Kuma's chart{format_suggestion(name, known)}")


def _arguments(options: InstallOptions) -> Iterator[str]:
    yield f"--namespace={NAMESPACE}"
    for file in (find_shipped("manifests") / "kuma/install.yaml", *options.values):
        yield f"--values={file}"
    if options.hub:
        yield f"--set=global.image.registry={options.hub}"
    if options.tag:
        yield from (f"--set={image}.tag={options.tag}" for image in _IMAGES)


def _make_error(stderr: str, options: InstallOptions) -> InputError | RefusedError:
    """Return the error for rejected values: InputError for the user's, RefusedError for meshbench's own."""
    reason = stderr.strip().rpartition("Error: ")[2] or "no message"
    given = [str(file) for file in options.values]
    given += [f"{name} {value}" for name in ("hub", "tag") if (value := getattr(options, name))]
    if given:
        return InputError(f"kumactl rejects these values ({', '.join(given)}): {reason}")
    return RefusedError(f"kumactl rejects manifests/kuma/install.yaml: {reason}; hint: use kumactl {SERIES}")


def read_rendered(text: str, *, any_series: bool = False) -> tuple[Object, ...]:
    """Return the objects in kumactl's output without the chart's hooks, which are jobs for Helm.

    Raises RefusedError for images of another series, and InputError if the control plane is in another namespace than
    expected.
    """
    objects = tuple(_drop_namespace(one) for one in parse_generated(text) if not _is_hook(one))
    planes = [one for one in objects if (one["kind"], one["metadata"]["name"]) == ("Deployment", CONTROL_PLANE)]
    if [plane["metadata"].get("namespace") for plane in planes] != [NAMESPACE]:
        raise InputError(f"the values make no Deployment {CONTROL_PLANE} in {NAMESPACE}, and meshbench needs it there")
    tag = planes[0]["spec"]["template"]["spec"]["containers"][0]["image"].rpartition(":")[2]
    if not any_series and not tag.startswith(f"{SERIES}."):
        raise RefusedError(
            f"kumactl installs Kuma {tag}; meshbench's values and policies are for {SERIES}; hint: {_SOURCE}"
        )
    return objects


def _is_hook(manifest: Object) -> bool:
    return _HOOK in (manifest["metadata"].get("annotations") or {})


def _drop_namespace(manifest: Object) -> Object:
    if manifest["kind"] not in _CLUSTER_WIDE:
        return manifest
    metadata = {key: value for key, value in manifest["metadata"].items() if key != "namespace"}
    return {**manifest, "metadata": metadata}


def wait_ready(cluster: Cluster, *, timeout_s: float, watch: CancelToken) -> None:
    """Wait until the control plane is available and its webhooks respond. Raises DeployError after `timeout_s`.

    A dry run of the Mesh calls both webhooks. A dry run of a pod would be rejected, since the Mesh is applied later.
    """
    wait_for_rollout(cluster, NAMESPACE, (CONTROL_PLANE,), timeout_s=timeout_s, watch=watch)
    problem: list[str] = ["no response"]

    def responds() -> bool:
        problem[0] = _webhook_problem(cluster)
        return not problem[0]

    if not wait_until(responds, timeout_s=timeout_s, watch=watch, poll_s=cluster.timing.poll_s):
        raise DeployError(
            f"Kuma's control plane runs, but its webhooks do not answer after {timeout_s:.0f} s: {problem[0]}"
        )


def _webhook_problem(cluster: Cluster) -> str:
    try:
        cluster.apply(BASE_MESH, dry_run=True)
    except ClusterError as error:
        if error.kind is not ErrorKind.UNAVAILABLE:  # not the webhook's failure
            raise
        return str(error)
    return ""
