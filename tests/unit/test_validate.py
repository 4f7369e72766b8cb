"""`meshbench validate` says which target takes a scenario or a folder of manifests, and why another one does not."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bench.cli.validate import validate
from bench.errors import InputError
from tests.unit.test_inputs import STRICT, write

CUSTOM = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: audit}
spec:
  action: CUSTOM
"""
MISSPELT = CUSTOM.replace("action: CUSTOM", "actoin: DENY")
HOOK = 'apiVersion: v1\nkind: Pod\nmetadata: {name: web-test, annotations: {"helm.sh/hook": test}}\n'


def run(*arguments: str) -> Result:
    """Run the command; a failure is raised."""
    result = CliRunner().invoke(validate, arguments, standalone_mode=False)
    if result.exception:
        raise result.exception
    return result


def refusal(*arguments: str) -> str:
    with pytest.raises(InputError) as caught:
        run(*arguments)
    return str(caught.value)


def test_scenario_that_both_targets_take(tmp_path: Path) -> None:
    """A table of two lines, without reasons."""
    path = write(tmp_path, {"policies/a.yaml": STRICT}, "policies")
    for target in ("any", "local", "cluster"):
        assert run(path, "--target", target).output == f"{path}: valid\n  local    yes\n  cluster  yes\n"


def test_scenario_that_needs_a_cluster(tmp_path: Path) -> None:
    """Valid for any target and for a cluster; the table has the reason, which is the error for this machine."""
    path = write(tmp_path, {"policies/a.yaml": CUSTOM}, "policies")
    reason = f"{tmp_path}/policies/a.yaml:6: spec.action: 'CUSTOM' is not supported"
    for arguments in ([path], [path, "--target", "cluster"]):
        lines = run(*arguments).output.splitlines()
        assert lines[:2] == [f"{path}: valid", "  local    no"]
        assert lines[2].startswith(f"    {reason}")
        assert lines[2].endswith("needs a cluster: run with --context NAME")
        assert lines[3] == "  cluster  yes"
    assert refusal(path, "--target", "local").startswith(reason)


def test_reasons_of_the_other_target_are_few(tmp_path: Path) -> None:
    """The table has five, and how to see all of them."""
    files = {f"policies/{number}.yaml": CUSTOM.replace("audit", f"audit-{number}") for number in range(8)}
    path = write(tmp_path, files, "policies")
    lines = run(path).output.splitlines()
    assert [line for line in lines if "is not supported" in line] == lines[2:7]
    assert lines[7] == "    and 3 more; --target local lists all"
    assert len(refusal(path, "--target", "local").splitlines()) == 8


def test_near_miss_is_an_error_for_every_target(tmp_path: Path) -> None:
    """A field that resembles a known one is a mistake."""
    path = write(tmp_path, {"policies/a.yaml": MISSPELT}, "policies")
    assert len({refusal(path, "--target", target) for target in ("any", "local", "cluster")}) == 1
    assert "a.yaml:6: spec.actoin: unknown key 'actoin'; did you mean action?" in refusal(path)


def test_lists_what_is_not_applied(tmp_path: Path) -> None:
    """A test of a chart is no part of what is measured; the name is that in the scenario."""
    path = write(tmp_path, {"policies/a.yaml": f"{STRICT}---\n{HOOK}"}, "policies")
    lines = run(path).output.splitlines()
    assert lines[-2:] == [
        "of the manifests is not applied:",
        "  policies/a.yaml:9: Pod web-test is not applied: a Helm hook for test",
    ]


def test_manifests_without_a_scenario(tmp_path: Path) -> None:
    """Of any namespace: how many a target takes, and why the others need a cluster."""
    other = STRICT.replace("name: default", "name: default, namespace: other")
    write(tmp_path, {"policies/a.yaml": STRICT, "policies/sub/b.json": "", "policies/c.yaml": f"{other}---\n{CUSTOM}"})
    (tmp_path / "policies/run.sh").write_text("", "utf-8")
    lines = run("--mesh", "istio", str(tmp_path / "policies")).output.splitlines()
    assert lines[:2] == [f"{tmp_path}/policies: valid, 3 objects", "  local    2, 1 more on a cluster only"]
    assert lines[2].startswith(f"    {tmp_path}/policies/c.yaml:12: spec.action: 'CUSTOM' is not supported")
    assert lines[3:] == ["  cluster  3", f"warning: {tmp_path}/policies/run.sh would not be applied"]


def test_manifests_that_no_target_takes(tmp_path: Path) -> None:
    """All errors of all files at once; with `--target local` what needs a cluster is one of them."""
    write(tmp_path, {"policies/a.yaml": MISSPELT, "policies/b.yaml": "a: 1\n", "policies/c.yaml": CUSTOM})
    folder = str(tmp_path / "policies")
    assert [line.rpartition("/")[2][:8] for line in refusal("--mesh", "istio", folder).splitlines()] == [
        "a.yaml:6",
        "b.yaml:1",
    ]
    assert len(refusal("--mesh", "istio", folder, "--target", "local").splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--mesh", "isto", "."), "--mesh: 'isto' is not supported (supported: istio, kuma); did you mean istio?"),
        (("--mesh", "istio", "none"), "none: no such file or folder"),
    ],
)
def test_refuses_wrong_arguments(arguments: tuple[str, ...], message: str) -> None:
    """An unknown mesh, and a folder that is not there."""
    assert refusal(*arguments) == message


def test_single_file_of_manifests(tmp_path: Path) -> None:
    """A file, of the other mesh, too."""
    write(tmp_path, {"policies/a.yaml": STRICT})
    file = str(tmp_path / "policies/a.yaml")
    assert run("--mesh", "istio", file).output == f"{file}: valid, 1 object\n  local    1\n  cluster  1\n"
    assert "is not of this configuration's mesh" in refusal("--mesh", "kuma", file)


def test_problems_of_all_folders_are_reported_together(tmp_path: Path) -> None:
    """A second folder is checked although the first has errors."""
    write(tmp_path, {"a/a.yaml": MISSPELT, "b/b.yaml": MISSPELT})
    assert len(refusal("--mesh", "istio", str(tmp_path / "a"), str(tmp_path / "b")).splitlines()) == 2


def test_universal_form_of_kuma_is_that_of_kubernetes(tmp_path: Path) -> None:
    """Both forms are objects of the mesh."""
    text = "type: MeshTrafficPermission\nname: a\nmesh: default\nspec: {targetRef: {kind: Mesh}}\n"
    write(tmp_path, {"p/a.yaml": text})
    assert run("--mesh", "kuma", str(tmp_path / "p")).output.startswith(f"{tmp_path}/p: valid, 1 object\n")
