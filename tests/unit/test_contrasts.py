"""Pairs that a scenario names: how they are read, which pairs are compared, and what `plan` says of them."""

import json
from pathlib import Path

import pytest

from bench.cli.plan_text import outline, outline_json
from bench.scenario.contrasts import Compared, alike, compared
from bench.scenario.loader import load_scenario, validate_file
from bench.scenario.model import Pair, Scenario
from bench.scenario.plan import make_plan
from tests.factory import ISTIO_AND_KUMA, MESH_PAIRS, Made, Simulated, make_scenario

FIVE = Made(configurations=ISTIO_AND_KUMA, contrasts=MESH_PAIRS, name="istio-vs-kuma")

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
    """What `validate` says about a scenario of this text."""
    path = folder / "mine.yaml"
    path.write_text(text, "utf-8")
    return [str(problem).replace(f"{folder}/", "") for problem in validate_file(path)]


def test_named_pairs_are_read_and_kept(tmp_path: Path) -> None:
    """A scenario keeps its named pairs in their order and direction, also in a run's record."""
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD, "utf-8")
    scenario = load_scenario(str(path))
    assert scenario.contrasts == (Pair(configuration="c", reference="b"),)
    assert Scenario.model_validate_json(scenario.model_dump_json()) == scenario


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("{configuration: c, reference: d}", "5: contrasts[0].reference: d is none of the configurations: a, b, c"),
        ("{configuration: d, reference: c}", "5: contrasts[0].configuration: d is none of the configurations: a, b, c"),
        (
            "{configuration: c, reference: c}",
            "5: contrasts[0].reference: c would be compared with itself; name another configuration",
        ),
        (
            "{configuration: b, reference: a}",
            "5: contrasts[0]: everyone is compared with the reference a anyway; leave this pair out",
        ),
        (
            "{configuration: a, reference: b}",
            "5: contrasts[0]: everyone is compared with the reference a anyway; leave this pair out",
        ),
        (
            "{configuration: c, reference: b}\n  - {configuration: b, reference: c}",
            "6: contrasts[1]: contrasts[0] compares these two already; leave one of them out",
        ),
        ("{configuration: c}", "5: contrasts[0].reference: is missing"),
        ("{configuration: c, refrence: b}", "5: contrasts[0].reference: is missing"),
    ],
)
def test_a_pair_that_adds_nothing_is_told_at_its_line(tmp_path: Path, pair: str, said: str) -> None:
    """A pair that is unknown, of one side, there twice, or compared anyway is an error with file and line."""
    assert f"mine.yaml:{said}" in messages(tmp_path, GOOD.replace("{configuration: c, reference: b}", pair))


def test_a_pair_is_checked_beside_broken_configurations(tmp_path: Path) -> None:
    """A mistake in a configuration hides none in the pairs, and makes no false one."""
    text = GOOD.replace("{name: c, mesh: none}", "{name: c, mesh: nnoe}")
    assert len(messages(tmp_path, text)) == 1
    assert len(messages(tmp_path, text.replace("reference: b}", "reference: d}"))) == 2


def test_every_pair_is_compared_once() -> None:
    """All with the reference, then the named pairs, then the steps of each mesh that are not named."""
    assert compared(make_scenario(FIVE)) == (
        *(Compared(name, "baseline") for name in ("istio", "istio-policies", "kuma", "kuma-policies")),
        Compared("kuma", "istio", named=True),
        Compared("kuma-policies", "istio-policies", named=True),
        Compared("istio-policies", "istio"),
        Compared("kuma-policies", "kuma"),
    )
    named_step = make_scenario(Made(contrasts=(("istio-policies", "istio"),)))
    assert compared(named_step)[-1] == Compared("istio-policies", "istio", named=True)
    assert len(compared(named_step)) == 3


def test_without_a_reference_only_named_pairs_are_compared() -> None:
    """A scenario without a reference compares what it names, and nothing else."""
    scenario = make_scenario(Made(configurations=ISTIO_AND_KUMA, reference=None, contrasts=MESH_PAIRS[:1]))
    assert compared(scenario) == (Compared("kuma", "istio", named=True),)


def test_one_configuration_under_two_names_is_alike() -> None:
    """Two configurations are alike when nothing but the name differs: neither mesh nor manifests nor load."""
    sides = (Simulated("a"), Simulated("b"), Simulated("c", users=5), Simulated("d", "istio"))
    scenario = make_scenario(Made(configurations=sides, reference=None))
    assert alike(scenario, "a", "b")
    assert not alike(scenario, "a", "c")
    assert not alike(scenario, "a", "d")


def test_the_plan_says_who_is_compared_with_whom() -> None:
    """`plan` has a line for each kind of question, and all pairs as JSON."""
    scenario = make_scenario(FIVE)
    plan = make_plan(scenario, 1)
    lines = outline(scenario, plan).splitlines()
    first = lines.index("compares, on P95 first:")
    assert lines[first + 1].strip().startswith("istio with baseline, istio-policies with baseline")
    assert lines[first + 2] == "  named: kuma with istio, kuma-policies with istio-policies"
    assert lines[first + 3] == "  exploratory: istio-policies with istio, kuma-policies with kuma"
    pairs = json.loads(outline_json(scenario, plan))["comparisons"]
    assert {"configuration": "kuma", "reference": "istio", "named": True} in pairs
    alone = make_scenario(Made(reference=None))
    assert "nothing: there is no reference" in outline(alone, make_plan(alone, 1))
