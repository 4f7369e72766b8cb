"""Probes of a scenario's own: requests whose responses prove what policies do that meshbench need not understand."""

from pathlib import Path

import pytest

from bench.cli.options import check_load
from bench.errors import InputError
from bench.meshes.resolved import ResolvedScenario, resolve_file
from bench.results.store import RunFolder, read_run
from bench.run.session import read_resumable_run
from bench.scenario.probes import ScenarioProbe
from bench.system.redaction import redact
from bench.targets.cluster.probes.pods import find_callers
from bench.verification.checks import scenario_checks
from bench.verification.questions import Answer, Question
from tests.factory import ConfigSpec, RunSpec, make_run

SMALL = RunSpec(configurations=(ConfigSpec("baseline"),), repeats=1, warmup_s=1, duration_s=2)
SCENARIO = """\
name: own
title: Own probes
load: {users: 5, warmup: 5s, duration: 20s}
repeats: 1
reference: baseline
probes:
  - {as: locust, to: productpage, path: /productpage, expect: 200}
configurations:
  - {name: baseline, mesh: none}
  - name: own
    mesh: istio
    manifests: [istio/policies]
    probes:
      - {as: details, to: ratings, path: "/ratings/0", headers: {X-Token: abc}, expect: 403}
      - {as: outside, to: details, method: POST, path: "/details/0", expect: 0}
"""


def resolve(folder: Path, text: str = SCENARIO) -> ResolvedScenario:
    scenario = folder / "own.yaml"
    scenario.write_text(text, "utf-8")
    return resolve_file(scenario)


def test_probes_of_the_scenario_and_of_the_configuration_are_asked(tmp_path: Path) -> None:
    """Those of the scenario in every configuration, also without a mesh."""
    resolved = resolve(tmp_path)
    asked = {one.name: [check.question for check in scenario_checks(one)] for one in resolved.configurations}
    page = Question("locust", "productpage", "GET", "/productpage")
    assert asked == {
        "baseline": [page],
        "own": [
            page,
            Question("details", "ratings", "GET", "/ratings/0", headers=(("X-Token", "abc"),)),
            Question("outside", "details", "POST", "/details/0"),
        ],
    }


@pytest.mark.parametrize(("status", "ok"), [(403, True), (200, False), (0, False)])
def test_probe_proves_the_expected_status(status: int, ok: bool, tmp_path: Path) -> None:
    """Any other response is a failed proof of the configuration: no load is sent."""
    check = [*scenario_checks(resolve(tmp_path).configuration("own"))][1]
    fact = check.judge(Answer(status, b"", {}))
    assert (fact.name, fact.ok, fact.about) == ("probe", ok, "configuration")
    assert (fact.subject, fact.expected) == ("details -> ratings: GET /ratings/0", "403")


def test_closed_connection_is_expected_as_zero(tmp_path: Path) -> None:
    """Strict mutual TLS refuses plaintext so."""
    check = [*scenario_checks(resolve(tmp_path).configuration("own"))][2]
    assert check.judge(Answer(0, b"", {}, refused="connection closed without a response")).ok
    assert not check.judge(Answer(403, b"", {})).ok


def test_caller_of_a_probe_has_a_pod(tmp_path: Path) -> None:
    """Also where no other proof needs one; that outside of the mesh is there anyway."""
    own = resolve(tmp_path).configuration("own")
    callers = find_callers(own.application, (), (one.caller for one in own.scenario_probes))
    assert callers == ("locust", "productpage", "reviews", "details")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "to: ratings",
            "to: rating",
            "configurations[1].probes[0].to: no workload 'rating' in own; did you mean ratings?",
        ),
        ("as: locust", "as: lokust", "probes[0].as: no workload 'lokust' in baseline; did you mean locust?"),
        ("expect: 403", "expect: denied", "configurations[1].probes[0].expect: must be a status, such as 200, or 0"),
        (
            "expect: 403",
            "expects: 403",
            "configurations[1].probes[0].expects: unknown key 'expects'; did you mean expect?",
        ),
        ('path: "/ratings/0"', "path: ratings", "configurations[1].probes[0].path: 'ratings' is not a path"),
        (
            "manifests: [istio/policies]",
            "manifests: [istio/gateway]",
            "probes[0].to: in own the load reaches gateway only",
        ),
    ],
)
def test_reports_wrong_probe_with_its_line(old: str, new: str, problem: str, tmp_path: Path) -> None:
    """A name that no workload has, a status that is none, a misspelt key."""
    with pytest.raises(InputError) as raised:
        resolve(tmp_path, SCENARIO.replace(old, new))
    lines = str(raised.value).splitlines()
    assert any(f": {problem}" in line and line.startswith(f"{tmp_path}/own.yaml:") for line in lines)


SECRET = "pa55-of-the-shop"  # noqa: S105  # of no account


def test_header_that_is_a_secret_is_recorded_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scenario has where its value is read; the probe sends the value, and a message about it is redacted."""
    monkeypatch.setenv("SHOP_TOKEN", SECRET)
    (tmp_path / "key.txt").write_text(f"{SECRET}-of-file\n", "utf-8")
    headers = "headers: {X-Token: {env: SHOP_TOKEN}, X-Key: {file: key.txt}, X-Shop: eu}"
    own = resolve(tmp_path, SCENARIO.replace("headers: {X-Token: abc}", headers)).configuration("own")
    question = [*scenario_checks(own)][1].question
    assert question.headers == (("X-Token", SECRET), ("X-Key", f"{SECRET}-of-file"), ("X-Shop", "eu"))
    recorded = {"X-Token": {"env": "SHOP_TOKEN"}, "X-Key": {"file": str(tmp_path / "key.txt")}, "X-Shop": "eu"}
    assert own.scenario_probes[1].model_dump(mode="json")["headers"] == recorded
    assert ScenarioProbe.model_validate(own.scenario_probes[1].model_dump(mode="json")) == own.scenario_probes[1]
    assert redact(f"sent {SECRET}") == "sent REDACTED"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("{env: NO_SUCH}", "the variable NO_SUCH is not set; hint: export NO_SUCH=..."),
        ("{env: TWO_LINES}", "from the variable TWO_LINES: must be one line without control characters, in Latin-1"),
        ("{env: WIDE}", "from the variable WIDE: must be one line without control characters, in Latin-1"),
        ("{file: no-such.txt}", "no-such.txt: No such file or directory"),
    ],
)
def test_unreadable_header_is_reported_before_a_run(
    value: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With file and line; a value that would end the header is refused, and `plan` needs none."""
    monkeypatch.delenv("NO_SUCH", raising=False)
    monkeypatch.setenv("TWO_LINES", "a\r\nHost: other")
    monkeypatch.setenv("WIDE", "\u20ac")
    resolved = resolve(tmp_path, SCENARIO.replace("{X-Token: abc}", f"{{X-Token: {value}}}"))
    with pytest.raises(InputError) as raised:
        check_load(resolved, str(tmp_path / "own.yaml"))
    assert str(raised.value).startswith(f"{tmp_path}/own.yaml:14: configurations[1].probes[0].headers.X-Token: ")
    assert str(raised.value).endswith(message)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{X-Token: abc}", f"{{Authorization: Bearer {SECRET}}}"),
        ("{X-Token: abc}", f"{{X-Url: 'http://me:{SECRET}@host'}}"),
        ('"/ratings/0"', f"/ratings/0?token={SECRET}"),
        ("{users: 5,", f"{{users: 5, env: {{password: {SECRET}}},"),
        ("{users: 5,", f"{{users: 5, options: {{token: {SECRET}}},"),
    ],
)
def test_secret_in_a_scenario_is_private(old: str, new: str, tmp_path: Path) -> None:
    """The record has REDACTED in its place; a run that is resumed has the scenario as it was, or one message."""
    scenario = resolve(tmp_path, SCENARIO.replace(old, new)).scenario
    made = make_run(tmp_path / "results", SMALL)
    folder = RunFolder(made.path, made.record)
    folder.update(scenario=scenario, status="interrupted")
    folder.journal.close()
    assert SECRET not in (made.path / "run.json").read_text("utf-8")
    assert read_resumable_run(made.path, on_cluster=False).scenario == scenario
    assert read_run(made.path).record.scenario != scenario
    (made.path.parent / ".private" / made.path.name / "scenario.json").unlink()
    with pytest.raises(
        InputError, match=r"private files that it needs are missing or changed in .*: scenario\.json; hint"
    ):
        read_resumable_run(made.path, on_cluster=False)
    assert read_run(made.path).problems == ()
    (made.path / "private.json").unlink()
    with pytest.raises(InputError, match="its record has REDACTED in place of a secret of the scenario"):
        read_resumable_run(made.path, on_cluster=False)
