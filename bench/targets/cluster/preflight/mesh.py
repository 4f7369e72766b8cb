"""Examine the mesh and its tools: an existing mesh, telemetry that costs latency, versions of istioctl and kumactl."""

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.check_result import CheckResult
from bench.files.yaml_source import generated_documents
from bench.k8s.client import Cluster, Object
from bench.k8s.wait import unavailable
from bench.meshes.control_planes import CONTROL_PLANES
from bench.meshes.protocols import ControlPlane
from bench.system.processes import run_tool
from bench.targets.cluster.options import ClusterOptions
from bench.targets.cluster.probes.injection import WEBHOOKS, selecting_webhooks

_POD: Final[Object] = {"metadata": {"name": "meshbench-guest", "labels": {"app": "meshbench-guest"}}}
_GUEST: Final = "meshbench-guest"


def examine_guest(cluster: Cluster, meshes: Sequence[str], options: ClusterOptions) -> tuple[CheckResult, ...]:
    """One finding for each mesh that serves, or for each reason why it does not; none for one that is not there."""
    there = [CONTROL_PLANES[mesh] for mesh in meshes if CONTROL_PLANES[mesh].present(cluster)]
    return tuple(finding for plane in there for finding in _examine(cluster, plane, options))


def found_versions(cluster: Cluster, meshes: Sequence[str]) -> dict[str, str]:
    """The versions of meshes that are there, by mesh: the tag of the control plane's image."""
    there = {
        mesh: cluster.list("apps/v1", "Deployment", namespace=plane.NAMESPACE, labels=plane.PODS)
        for mesh, plane in CONTROL_PLANES.items()
        if mesh in meshes
    }
    return {mesh: _tag(found[0]["spec"]["template"]["spec"]["containers"][0]) for mesh, found in there.items() if found}


def _tag(container: Object) -> str:
    name = str(container["image"]).rpartition("/")[2]
    return name.partition(":")[2] or name


def _examine(cluster: Cluster, plane: ControlPlane, options: ClusterOptions) -> Iterator[CheckResult]:
    deployments = cluster.list("apps/v1", "Deployment", namespace=plane.NAMESPACE, labels=plane.PODS)
    troubles = [*_absent(plane, deployments), *_deaf(cluster, plane, options.revision), *plane.unfit(cluster)]
    what, hint = f"{plane.NAME}, as a guest", "correct it there, or leave out --use-existing-mesh on another cluster"
    yield from (CheckResult(what, "error", trouble, hint) for trouble in troubles)
    if not troubles:
        yield CheckResult(what, "ok", "what is for a whole mesh will be for the run's own namespace alone")


def _absent(plane: ControlPlane, deployments: Sequence[Object]) -> Iterator[str]:
    if not deployments:
        yield f"no Deployment with {plane.PODS} in {plane.NAMESPACE}"
    yield from (trouble for one in deployments if (trouble := unavailable(one)))


def _deaf(cluster: Cluster, plane: ControlPlane, revision: str) -> Iterator[str]:
    """Nobody would give the run's pods their sidecars."""
    labels = plane.namespace_labels(revision, _GUEST)
    namespace = {"metadata": {"name": _GUEST, "labels": {**labels, "kubernetes.io/metadata.name": _GUEST}}}
    asked = selecting_webhooks(namespace, [_POD], cluster.list(*WEBHOOKS))
    if not any(name.endswith(f"{plane.NAME}.io") for name in asked):
        told = " and ".join(f"{key}={value}" for key, value in labels.items())
        yield f"no webhook of it would give pods of a namespace with {told} a sidecar"


WHAT: Final = "telemetry"
_HINT: Final = "leave it out of --mesh-values, unless it is what you want to measure"
_COSTS: Final = ", which costs latency and CPU that the mesh alone does not"
_SAMPLING: Final = "PILOT_TRACE_SAMPLING"
_DEFAULT_SAMPLING: Final = 1.0  # percent, where tracing is on and nobody says more


def examine_telemetry(mesh: str, objects: Iterable[Object]) -> tuple[CheckResult, ...]:
    """A doubt for each; the report's heading has it, too."""
    things = tuple(objects)
    detail = (*_access_logs(things), *_traces(things)) if mesh == "istio" else ()
    return tuple(CheckResult(WHAT, "warning", f"{mesh}: {one}", _HINT) for one in detail)


def _access_logs(things: Iterable[Object]) -> Iterator[str]:
    for settings in _mesh_settings(things):
        providers = (settings.get("defaultProviders") or {}).get("accessLogging") or ()
        if where := settings.get("accessLogFile") or ", ".join(providers):
            yield f"sidecars log every request ({where}){_COSTS}"


def _traces(things: tuple[Object, ...]) -> Iterator[str]:
    for settings in _mesh_settings(things):
        providers = (settings.get("defaultProviders") or {}).get("tracing") or ()
        if settings.get("enableTracing") or providers:
            tracing = (settings.get("defaultConfig") or {}).get("tracing") or {}
            share = float(tracing.get("sampling") or _sampling(things))
            yield f"sidecars trace {share:g} % of all requests{_COSTS}"


def _mesh_settings(things: Iterable[Object]) -> Iterator[dict[str, Any]]:
    """Istio's mesh configuration is YAML in a ConfigMap, one for each revision."""
    for thing in things:
        if thing["kind"] == "ConfigMap" and "mesh" in (thing.get("data") or {}):
            yield from generated_documents(thing["data"]["mesh"])


def _sampling(things: Iterable[Object]) -> float:
    """Percent, as istiod's environment says."""
    deployments = (thing for thing in things if thing["kind"] == "Deployment")
    containers = (one for thing in deployments for one in thing["spec"]["template"]["spec"]["containers"])
    entries = (entry for one in containers for entry in one.get("env") or () if entry["name"] == _SAMPLING)
    return next((float(entry["value"]) for entry in entries if entry.get("value")), _DEFAULT_SAMPLING)


_VERSION: Final = re.compile(r"\bv?(\d+)\.(\d+)(?:[.+-][0-9A-Za-z.+-]*)?")

_TIMEOUT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool, the words that make it tell its version, the oldest (major, minor) that serves, where it is from, and
    the first that serves no more."""

    name: str
    asks: tuple[str, ...]
    oldest: tuple[int, int]
    source: str
    below: tuple[int, int] | None = None

    @property
    def wanted(self) -> str:
        until = f"before {self.below[0]}.{self.below[1]}" if self.below else "or later"
        return f"{self.name} {self.oldest[0]}.{self.oldest[1]} {until}"


TOOLS: Final[Mapping[str, Tool]] = {
    tool.name: tool
    for tool in (
        # 1.22 was the first to serve security.istio.io/v1, in which our policies are written.
        Tool("istioctl", ("version", "--remote=false"), (1, 22), "https://istio.io/latest/docs/setup/getting-started/"),
        # The one series whose values and policies ours are; 3.0 takes neither the same way.
        Tool(
            "kumactl",
            ("--no-config", "version"),
            (2, 14),
            "https://kuma.io/docs/2.14.x/introduction/install/",
            below=(2, 15),
        ),
    )
}
_HELM: Final = Tool("helm", ("version", "--short"), (0, 0), "https://helm.sh/docs/intro/install/")


def examine_tools(names: Sequence[str]) -> tuple[CheckResult, ...]:
    """One finding for each of these tools."""
    return tuple(_examine_tool(TOOLS[name]) for name in dict.fromkeys(names))


def examine_helm() -> CheckResult:
    """Helm's version, for who asks what a run was made with; the run itself does without."""
    path = shutil.which(_HELM.name)
    match = find_version(_said(_HELM)) if path else None
    found = f"{match[0].removeprefix('v')} ({path})" if match else path or "not on PATH"
    return CheckResult(_HELM.name, "ok", f"{found}; not needed: the meshes' own tools render them")


def mesh_versions(meshes: Sequence[str]) -> dict[str, str]:
    """What the meshes' tools call their version, by mesh; a mesh whose tool is not here, or does not tell, is left
    out."""
    said = {mesh: find_version(_said(TOOLS[CONTROL_PLANES[mesh].TOOL])) for mesh in meshes}
    return {mesh: match[0].removeprefix("v") for mesh, match in said.items() if match}


def _said(tool: Tool) -> str:
    """A tool's answer to the question for its version; empty where it is not here or does not run."""
    path = shutil.which(tool.name)
    try:
        return _ask(tool, path) if path else ""
    except OSError:
        return ""


def _ask(tool: Tool, path: str) -> str:
    ran = run_tool([path, *tool.asks], timeout_s=_TIMEOUT_S)
    return ran.stdout or ran.stderr


def _examine_tool(tool: Tool) -> CheckResult:
    path = shutil.which(tool.name)
    if path is None:
        return CheckResult(tool.name, "error", "not on PATH", f"install {tool.wanted}: {tool.source}")
    try:
        return judge(tool, path, _ask(tool, path))
    except OSError as error:
        return CheckResult(tool.name, "error", f"{path} does not run: {error}", f"install {tool.wanted}: {tool.source}")


def find_version(said: str) -> re.Match[str] | None:
    """The version in a tool's answer: in its first line, since others may tell of a server, with addresses that look
    like versions."""
    return _VERSION.search(said.strip().partition("\n")[0])


def judge(tool: Tool, path: str, said: str) -> CheckResult:
    """What a tool's answer to the question for its version means."""
    match = find_version(said)
    if match is None:
        first = said.strip().partition("\n")[0]
        return CheckResult(
            tool.name, "warning", f"{path} prints no version: {first or 'nothing'}", f"use {tool.wanted}"
        )
    release = int(match[1]), int(match[2])
    found = f"{match[0].removeprefix('v')} ({path})"
    if release < tool.oldest or (tool.below is not None and release >= tool.below):
        age = "old" if release < tool.oldest else "new"
        return CheckResult(tool.name, "error", f"{found} is too {age}", f"install {tool.wanted}: {tool.source}")
    return CheckResult(tool.name, "ok", found)
