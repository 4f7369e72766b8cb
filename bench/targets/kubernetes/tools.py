"""The meshes' own command-line tools: whether they are there, and new enough."""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.findings import CheckResult
from bench.processes import run_tool
from bench.targets.kubernetes.control_planes import CONTROL_PLANES

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
    return tuple(_examine(TOOLS[name]) for name in dict.fromkeys(names))


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


def _examine(tool: Tool) -> CheckResult:
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
