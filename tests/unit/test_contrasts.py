"""Pairs that a scenario names: how they are read, which pairs are compared, and how `plan` prints them."""

import json
from pathlib import Path

import pytest

from bench.cli.plan_text import format_plan, format_plan_json
from bench.meshes.resolved import resolve
from bench.scenario.contrasts import Comparison, are_equal, list_comparisons
from bench.scenario.loader import find_inputs, load_scenario
from bench.scenario.model import Pair, Scenario
from bench.scenario.plan import make_plan
from tests.factory import ISTIO_AND_KUMA, MESH_PAIRS, ConfigSpec, RunSpec, make_scenario
from tests.validating import validate_file

FIVE = RunSpec(configurations=ISTIO_AND_KUMA, contrasts=MESH_PAIRS, name="istio-vs-kuma")

GOOD = """\
name: mine
title: A question
reference: a
contrasts:
  - {configuration: c, reference: b}
configurations:
  - {name: a, mesh: none}
  - {name: b, mesh: none}
  - {name: c, mesh: none}
"""


def messages(folder: Path, text: str) -> list[str]:
    """What `validate` reports about a scenario of this text."""
    path = folder / "mine.yaml"
    path.write_text(text, "utf-8")
    return [str(problem).replace(f"{folder}/", "") for problem in validate_file(path)]


def test_reads_named_pairs(tmp_path: Path) -> None:
    """A scenario keeps its named pairs in their order and direction, also in a run's record."""
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD, "utf-8")
    scenario = load_scenario(str(path))
    assert scenario.contrasts == (Pair(configuration="c", reference="b"),)
    assert Scenario.model_validate_json(scenario.model_dump_json()) == scenario


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        (
            "{configuration: c, reference: d}",
            "5: contrasts[0].reference: d is not a configuration (configurations: a, b, c)",
        ),
        (
            "{configuration: d, reference: c}",
            "5: contrasts[0].configuration: d is not a configuration (configurations: a, b, c)",
        ),
        (
            "{configuration: c, reference: c}",
            "5: contrasts[0].reference: c would be compared with itself; name another configuration",
        ),
        (
            "{configuration: b, reference: a}",
            "5: contrasts[0]: every configuration is compared with the reference a anyway; leave it out",
        ),
        (
            "{configuration: a, reference: b}",
            "5: contrasts[0]: every configuration is compared with the reference a anyway; leave it out",
        ),
        (
            "{configuration: c, reference: b}\n  - {configuration: b, reference: c}",
            "6: contrasts[1]: contrasts[0] already compares these two; leave one of them out",
        ),
        ("{configuration: c}", "5: contrasts[0].reference: is missing"),
        ("{configuration: c, refrence: b}", "5: contrasts[0].reference: is missing"),
    ],
)
def test_reports_redundant_pair_with_line(tmp_path: Path, pair: str, expected: str) -> None:
    """A pair that is unknown, of one side, repeated, or compared anyway is an error with file and line."""
    assert f"mine.yaml:{expected}" in messages(tmp_path, GOOD.replace("{configuration: c, reference: b}", pair))


def test_checks_pairs_with_invalid_configurations(tmp_path: Path) -> None:
    """An error in a configuration neither hides nor causes an error in the pairs."""
    text = GOOD.replace("{name: c, mesh: none}", "{name: c, mesh: NONE}")
    assert len(messages(tmp_path, text)) == 1
    assert len(messages(tmp_path, text.replace("reference: b}", "reference: d}"))) == 2


def test_compares_every_pair_once() -> None:
    """All with the reference, then the named pairs, then the steps of each mesh that are not named."""
    assert list_comparisons(make_scenario(FIVE)) == (
        *(Comparison(name, "baseline") for name in ("istio", "istio-policies", "kuma", "kuma-policies")),
        Comparison("kuma", "istio", named=True),
        Comparison("kuma-policies", "istio-policies", named=True),
        Comparison("istio-policies", "istio"),
        Comparison("kuma-policies", "kuma"),
    )
    named_step = make_scenario(RunSpec(contrasts=(("istio-policies", "istio"),)))
    assert list_comparisons(named_step)[-1] == Comparison("istio-policies", "istio", named=True)
    assert len(list_comparisons(named_step)) == 3


def test_compares_only_named_pairs_without_reference() -> None:
    """A scenario without a reference compares the pairs that it names, and nothing else."""
    scenario = make_scenario(RunSpec(configurations=ISTIO_AND_KUMA, reference=None, contrasts=MESH_PAIRS[:1]))
    assert list_comparisons(scenario) == (Comparison("kuma", "istio", named=True),)


def test_detects_equal_configurations() -> None:
    """Two configurations are equal when only the name differs: neither mesh nor manifests nor load."""
    sides = (ConfigSpec("a"), ConfigSpec("b"), ConfigSpec("c", users=5), ConfigSpec("d", "istio"))
    scenario = make_scenario(RunSpec(configurations=sides, reference=None))
    assert are_equal(scenario, "a", "b")
    assert not are_equal(scenario, "a", "c")
    assert not are_equal(scenario, "a", "d")


def test_plan_lists_comparisons() -> None:
    """`plan` has a line for each kind of comparison, and all pairs as JSON."""
    scenario = make_scenario(FIVE)
    resolved, plan = resolve(scenario, find_inputs(scenario, "smoke")), make_plan(scenario, 1)
    lines = format_plan(resolved, plan).splitlines()
    first = lines.index("comparisons, P95 first:")
    assert lines[first + 1].strip().startswith("istio with baseline, istio-policies with baseline")
    assert lines[first + 2] == "  planned: kuma with istio, kuma-policies with istio-policies"
    assert lines[first + 3] == "  exploratory: istio-policies with istio, kuma-policies with kuma"
    pairs = json.loads(format_plan_json(resolved, plan))["comparisons"]
    assert {"configuration": "kuma", "reference": "istio", "named": True} in pairs
    alone = make_scenario(RunSpec(reference=None))
    assert "none: there is no reference" in format_plan(
        resolve(alone, find_inputs(alone, "smoke")), make_plan(alone, 1)
    )
