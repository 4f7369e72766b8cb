"""Folders of Kustomize and Helm are rendered by the tool on PATH, which fetches nothing, or named with the command."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.application import rendering
from bench.meshes.resolved import find_problems, resolve_file
from bench.scenario.loader import find_stored_inputs
from tests.unit.test_inputs import STRICT, write

KUSTOMIZATION = "resources: [peer.yaml]\n"
CHART = "apiVersion: v2\nname: mine\nversion: 0.1.0\n"


class Tool:
    """Stands in for the tools on PATH: what they print, and how they were started."""

    def __init__(self, programs: Sequence[str], output: str = "", exit_code: int = 0, errors: str = "") -> None:
        self.programs, self.output, self.exit_code, self.errors = programs, output, exit_code, errors
        self.started: list[Sequence[str]] = []
        self.environments: list[Mapping[str, str]] = []

    def which(self, name: str) -> str | None:
        return f"/usr/bin/{name}" if name in self.programs else None

    def run(self, argv: Sequence[str], *, env: Mapping[str, str], **_: Any) -> "subprocess.CompletedProcess[str]":
        self.started.append(argv)
        self.environments.append(env)
        return subprocess.CompletedProcess(argv, self.exit_code, self.output, self.errors)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a tool in place of those on PATH."""

    def put(tool: Tool) -> Tool:
        monkeypatch.setattr(shutil, "which", tool.which)
        monkeypatch.setattr(rendering, "run_limited", tool.run)
        return tool

    return put


def messages(path: str) -> list[str]:
    return [str(one).replace(f"{Path(path).parent}/", "") for one in find_problems(Path(path))]


@pytest.mark.parametrize(
    ("programs", "command"),
    [
        (("kustomize", "kubectl"), ["/usr/bin/kustomize", "build"]),
        (("kubectl",), ["/usr/bin/kubectl", "kustomize"]),
    ],
)
def test_renders_a_kustomization(tmp_path: Path, use: Any, programs: tuple[str, ...], command: list[str]) -> None:
    """`kustomize` is preferred to `kubectl`; both read only files of the folder, with an empty home."""
    tool = use(Tool(programs, STRICT))
    path = write(tmp_path, {"base/kustomization.yaml": KUSTOMIZATION, "base/peer.yaml": "not read"}, "base")
    resolved = resolve_file(Path(path))
    (argv,), (env,) = tool.started, tool.environments
    assert [*argv[:2], argv[-1]] == [*command, str(tmp_path / "base")]
    assert argv[2:4] == ["--load-restrictor", "LoadRestrictionsRootOnly"]
    assert set(env) == {"HOME", "LC_ALL", "PATH", "TMPDIR"}
    assert not Path(env["HOME"]).exists()
    assert [one.value["metadata"]["name"] for one in resolved.configurations[0].objects] == ["default"]


def test_run_keeps_what_was_rendered(tmp_path: Path, use: Any) -> None:
    """A resumed run reads the rendered file of its folder, and needs no tool."""
    use(Tool(("helm",), f"---\n# Source: mine/templates/peer.yaml\n{STRICT}"))
    path = write(tmp_path, {"mine/Chart.yaml": CHART, "mine/templates/peer.yaml": "{{ .Values.a }}"}, "mine")
    resolved = resolve_file(Path(path))
    resolved.inputs.copy_to(tmp_path / "run")
    use(Tool(()))
    stored = find_stored_inputs(resolved.scenario, tmp_path / "run").manifests["mine"]
    assert [one.name for one in stored.iterdir()] == ["rendered.yaml"]
    assert "kind: PeerAuthentication" in (stored / "rendered.yaml").read_text("utf-8")


def test_problem_names_the_rendered_object(tmp_path: Path, use: Any) -> None:
    """There is no file of the user's with the line: the message has the tool, and kind and name of the object."""
    use(Tool(("kustomize",), STRICT.replace("mode: STRICT", "mode: STRIKT")))
    path = write(tmp_path, {"base/kustomization.yaml": KUSTOMIZATION, "base/peer.yaml": STRICT}, "base")
    (message,) = messages(path)
    assert message.startswith("base (kustomize build), PeerAuthentication default:5: spec.mtls.mode: 'STRIKT'")


def test_missing_tool_is_named_with_the_command(tmp_path: Path, use: Any) -> None:
    """One sentence has what to run where the tool is."""
    use(Tool(()))
    path = write(tmp_path, {"base/kustomization.yaml": KUSTOMIZATION, "base/peer.yaml": STRICT}, "base")
    (message,) = messages(path)
    assert message.startswith("base: is for Kustomize, but no kustomize or kubectl is on PATH; hint: run 'kustomize")


def test_failure_of_the_tool_is_reported(tmp_path: Path, use: Any) -> None:
    """The last lines of its errors, and the command to try."""
    use(Tool(("helm",), exit_code=1, errors="x\nError: values don't meet the schema\n"))
    path = write(tmp_path, {"mine/Chart.yaml": CHART}, "mine")
    (message,) = messages(path)
    assert "mine: cannot be rendered: helm template exits with 1: x; Error: values don't meet the schema" in message
    assert "hint: run 'helm template mine " in message


def test_empty_output_is_an_error(tmp_path: Path, use: Any) -> None:
    """A configuration would have no policies, and be measured under its name."""
    use(Tool(("helm",), "\n"))
    path = write(tmp_path, {"mine/Chart.yaml": CHART}, "mine")
    assert "mine: renders to nothing" in messages(path)[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("resources: [https://example.org/a.yaml]\n", "resources[0]: https://example.org/a.yaml is no file or folder"),
        ("resources: ['github.com/a/b//c?ref=v1']\n", "resources[0]: github.com/a/b//c?ref=v1 is no file or folder"),
        ("bases: ['git@example.org:a/b']\n", "bases[0]: git@example.org:a/b is no file or folder here"),
        ("resources: [inner.git/x]\n", "resources[0]: inner.git/x is no file or folder here"),
        ("components: [example.org/a/b]\n", "components[0]: example.org/a/b is no file or folder here"),
        ("resources: [inner]\n", "inner/kustomization.yaml:1: resources[0]: ssh://x/y is no file or folder"),
        ("patches: [{path: 'https://x/p.yaml'}]\n", "patches[0].path: https://x/p.yaml is not fetched"),
        ("configMapGenerator: [{name: a, files: ['k=https://x/f']}]\n", "files[0]: k=https://x/f is not fetched"),
        ("helmCharts: [{name: a, repo: 'https://x'}]\n", "helmCharts: is a plugin of kustomize"),
        ("generators: [g.yaml]\n", "generators: is a plugin of kustomize, which meshbench does not start"),
    ],
)
def test_refuses_what_a_kustomization_would_fetch(tmp_path: Path, use: Any, text: str, expected: str) -> None:
    """Before the tool is started, also in a base of the base."""
    tool = use(Tool(("kustomize",), STRICT))
    files = {"base/kustomization.yaml": text, "base/inner/kustomization.yaml": "resources: ['ssh://x/y']\n"}
    files["base/inner.git/x/kustomization.yaml"] = "resources: []\n"
    path = write(tmp_path, files, "base")
    assert expected in "\n".join(messages(path))
    assert tool.started == []


def test_addresses_in_values_are_no_files(tmp_path: Path, use: Any) -> None:
    """A literal of a ConfigMap and an inline patch may have an address."""
    tool = use(Tool(("kustomize",), STRICT))
    text = "configMapGenerator: [{name: a, literals: ['u=https://x']}]\npatches: [{patch: 'a: http://x'}]\n"
    files = {"base/kustomization.yaml": f"{text}resources: [../app.gitops/a.yaml]\n", "app.gitops/a.yaml": STRICT}
    write(tmp_path, files, "base")
    rendering.render(tmp_path / "base")
    assert len(tool.started) == 1


def test_refuses_chart_with_missing_dependency(tmp_path: Path, use: Any) -> None:
    """Helm would have to fetch it; the message has the command."""
    use(Tool(("helm",), STRICT))
    text = f"{CHART}dependencies: [{{name: redis, version: 1.0.0, repository: 'https://x'}}]\n"
    path = write(tmp_path, {"mine/Chart.yaml": text}, "mine")
    assert (
        "mine/Chart.yaml:4: dependencies[0]: redis is not in charts/; hint: run 'helm dependency" in messages(path)[0]
    )


def test_kustomization_inside_a_folder_is_named_itself(tmp_path: Path) -> None:
    """A folder is either applied or rendered, never both."""
    files = {"policies/peer.yaml": STRICT, "policies/sub/kustomization.yaml": KUSTOMIZATION}
    path = write(tmp_path, files, "policies")
    assert "policies/sub is for a tool such as Kustomize; name that folder itself" in messages(path)[0]


def test_other_folders_are_not_touched(tmp_path: Path) -> None:
    """A folder of manifests is what it is."""
    write(tmp_path, {"policies/peer.yaml": STRICT}, "policies")
    assert rendering.render(tmp_path / "policies") == rendering.Rendered(tmp_path / "policies")
