"""Examine the meshes and their tools: an existing mesh, telemetry that costs latency, versions."""

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from bench.check_result import CheckResult
from bench.k8s.client import Cluster, Object
from bench.k8s.wait import describe_unavailable
from bench.meshes import MESHES
from bench.meshes.cluster_protocol import ControlPlane, Tool
from bench.meshes.control_planes import CONTROL_PLANES
from bench.system.processes import run_tool
from bench.targets.cluster.options import ClusterOptions
from bench.targets.cluster.probes.injection import WEBHOOKS, selecting_webhooks

_TELEMETRY_HINT: Final = "leave it out of --mesh-values, unless it is what you want to measure"
_NAMESPACE: Final = "meshbench-check"  # never created: the webhooks' selectors are compared with it
_POD: Final[Object] = {"metadata": {"name": _NAMESPACE, "labels": {"app": _NAMESPACE}}}
_VERSION: Final = re.compile(r"\bv?(\d+)\.(\d+)(?:[.+-][0-9A-Za-z.+-]*)?")
_TIMEOUT_S: Final = 20.0


def examine_existing_mesh(cluster: Cluster, meshes: Sequence[str], options: ClusterOptions) -> tuple[CheckResult, ...]:
    """Return one result for each existing mesh that can be used, or for each reason why it cannot; none for one that is
    not there."""
    there = [CONTROL_PLANES[mesh] for mesh in meshes if CONTROL_PLANES[mesh].find_installed(cluster)]
    return tuple(finding for plane in there for finding in _examine_existing(cluster, plane, options))


def existing_versions(cluster: Cluster, meshes: Sequence[str]) -> dict[str, str]:
    """Return the versions of existing meshes, by mesh: the tag of the control plane's image."""
    there = {
        mesh: cluster.list("apps/v1", "Deployment", namespace=plane.NAMESPACE, labels=plane.PODS)
        for mesh, plane in CONTROL_PLANES.items()
        if mesh in meshes
    }
    return {
        mesh: _tag(deployments[0]["spec"]["template"]["spec"]["containers"][0])
        for mesh, deployments in there.items()
        if deployments
    }


def _tag(container: Object) -> str:
    name = str(container["image"]).rpartition("/")[2]
    return name.partition(":")[2] or name


def _examine_existing(cluster: Cluster, plane: ControlPlane, options: ClusterOptions) -> Iterator[CheckResult]:
    deployments = cluster.list("apps/v1", "Deployment", namespace=plane.NAMESPACE, labels=plane.PODS)
    requested = plane.namespace_labels(options.revision, _NAMESPACE)
    labels = {**options.placement.namespaces.labels, **requested, "kubernetes.io/metadata.name": _NAMESPACE}
    namespace = {"metadata": {"name": _NAMESPACE, "labels": labels}}
    problems = [
        *_find_missing_deployment(plane, deployments),
        *_find_missing_webhook(cluster, plane, namespace, requested),
        *plane.find_mismatches(cluster, namespace),
    ]
    name, hint = f"{plane.NAME}, existing mesh", "correct it there, or leave out --use-existing-mesh on another cluster"
    yield from (CheckResult(name, "error", problem, hint) for problem in problems)
    if not problems:
        yield CheckResult(name, "ok", "policies for a whole mesh will apply to the run's own namespace alone")


def _find_missing_deployment(plane: ControlPlane, deployments: Sequence[Object]) -> Iterator[str]:
    if not deployments:
        yield f"no Deployment with {plane.PODS} in {plane.NAMESPACE}"
    yield from (problem for one in deployments if (problem := describe_unavailable(one)))


def _find_missing_webhook(
    cluster: Cluster, plane: ControlPlane, namespace: Object, requested: Mapping[str, str]
) -> Iterator[str]:
    """Yield a problem where no webhook would inject sidecars into the run's pods, whose namespaces request them by
    these labels."""
    webhooks = selecting_webhooks(namespace, [_POD], cluster.list(*WEBHOOKS))
    if not any(name.endswith(MESHES[plane.NAME].domain) for name in webhooks):
        selector = " and ".join(f"{key}={value}" for key, value in requested.items())
        yield f"no webhook of it would inject a sidecar into pods of a namespace with {selector}"


def examine_telemetry(mesh: str, objects: Iterable[Object]) -> tuple[CheckResult, ...]:
    """Return a warning for each telemetry setting that costs latency; the report's heading has it, too."""
    found = CONTROL_PLANES[mesh].find_telemetry(tuple(objects))
    return tuple(CheckResult("telemetry", "warning", f"{mesh}: {one}", _TELEMETRY_HINT) for one in found)


def examine_tools(tools: Iterable[Tool]) -> tuple[CheckResult, ...]:
    """Return one result for each of these tools."""
    return tuple(map(_examine_tool, tools))


def tool_versions(meshes: Sequence[str]) -> dict[str, str]:
    """Return the versions that the meshes' tools print, by mesh; a mesh whose tool is missing, or prints none, is left
    out."""
    versions = {mesh: find_version(_read_version_output(CONTROL_PLANES[mesh].TOOL)) for mesh in meshes}
    return {mesh: match[0].removeprefix("v") for mesh, match in versions.items() if match}


def _read_version_output(tool: Tool) -> str:
    """Return what a tool prints as its version; empty where it is missing or does not run."""
    path = shutil.which(tool.name)
    try:
        return _run_version(tool, path) if path else ""
    except OSError:
        return ""


def _run_version(tool: Tool, path: str) -> str:
    ran = run_tool([path, *tool.version_argv], timeout_s=_TIMEOUT_S)
    return ran.stdout or ran.stderr


def _examine_tool(tool: Tool) -> CheckResult:
    path = shutil.which(tool.name)
    if path is None:
        return CheckResult(tool.name, "error", "not on PATH", f"install {tool.wanted}: {tool.source}")
    try:
        return judge_version(tool, path, _run_version(tool, path))
    except OSError as error:
        return CheckResult(tool.name, "error", f"{path} does not run: {error}", f"install {tool.wanted}: {tool.source}")


def find_version(output: str) -> re.Match[str] | None:
    """Find the version in a tool's output: in its first line, since others may name a server, with addresses that look
    like versions."""
    return _VERSION.search(output.strip().partition("\n")[0])


def judge_version(tool: Tool, path: str, output: str) -> CheckResult:
    """Return the result for a tool that printed this as its version."""
    match = find_version(output)
    if match is None:
        first = output.strip().partition("\n")[0]
        return CheckResult(
            tool.name, "warning", f"{path} prints no version: {first or 'nothing'}", f"use {tool.wanted}"
        )
    release = int(match[1]), int(match[2])
    detail = f"{match[0].removeprefix('v')} ({path})"
    if release < tool.oldest or (tool.below is not None and release >= tool.below):
        age = "old" if release < tool.oldest else "new"
        return CheckResult(tool.name, "error", f"{detail} is too {age}", f"install {tool.wanted}: {tool.source}")
    return CheckResult(tool.name, "ok", detail)
