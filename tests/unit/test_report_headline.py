"""The answer in one sentence: who adds how much to P95, how certain that is, and what is not known."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.report.headline import format_application, format_headline
from bench.report.text_formats import format_answers
from bench.results.summary_records import Contrast, SummaryRecord
from bench.scenario.contrasts import list_comparisons
from bench.scenario.model import Scenario
from tests.issues import issue
from tests.summaries import contrast, summary

# Verdicts with the numbers that lead to them: ratio, its interval, difference in ms.
SLOWER = {"verdict": "slower", "ratio": 1.71, "ratio_low": 1.62, "ratio_high": 1.81, "delta_ms": 8.61}
LARGER = {"verdict": "different", "ratio": 1.12, "ratio_low": 1.03, "ratio_high": 1.21, "delta_ms": 1.24}
FASTER = {"verdict": "faster", "ratio": 0.82, "ratio_low": 0.75, "ratio_high": 0.89, "delta_ms": -2.13}
EQUIVALENT = {"verdict": "equivalent", "ratio": 0.97, "ratio_low": 0.93, "ratio_high": 1.01, "delta_ms": -0.4}
MAY_ADD = {"verdict": "inconclusive", "ratio": 1.23, "ratio_low": 0.94, "ratio_high": 1.62, "delta_ms": 2.8}
MAY_REMOVE = {"verdict": "inconclusive", "ratio": 0.9, "ratio_low": 0.78, "ratio_high": 1.04, "delta_ms": -1.2}
EITHER = {"verdict": "inconclusive", "ratio": 0.98, "ratio_low": 0.66, "ratio_high": 1.47, "delta_ms": -0.9}
INVALID = {"verdict": "invalid", "ratio": None, "issues": (issue("no-valid-repeat", "istio has no valid repeat"),)}
ONE_REPEAT = {
    "verdict": "inconclusive", "ratio": 1.4, "ratio_low": None, "ratio_high": None,
    "issues": (issue("no-interval", "one repeat has no spread"),),
}  # fmt: skip
NOISE = FASTER | {"issues": (issue("below-reference", "a mesh adds work"),)}

BASELINE = {"name": "baseline", "mesh": "none"}
ISTIO = {"name": "istio", "mesh": "istio"}
ISTIO_POLICIES = {"name": "istio-policies", "mesh": "istio", "manifests": ["istio/policies"]}
ISTIO_GATEWAY = {"name": "istio-gateway", "mesh": "istio", "manifests": ["istio/gateway"]}
ISTIO_MTLS = {"name": "istio-mtls", "mesh": "istio", "manifests": ["istio/mtls"]}
KUMA = {"name": "kuma", "mesh": "kuma"}
KUMA_POLICIES = {"name": "kuma-policies", "mesh": "kuma", "manifests": ["kuma/policies"]}
KUMA_GATEWAY = {"name": "kuma-gateway", "mesh": "kuma", "manifests": ["kuma/gateway"]}
KUMA_DELEGATED = {"name": "kuma-gateway-delegated", "mesh": "kuma", "manifests": ["kuma/gateway-delegated"]}
COPY = {"name": "baseline-b", "mesh": "none"}
THREE = (BASELINE, ISTIO, ISTIO_POLICIES)


def make_scenario(
    configurations: Sequence[Mapping[str, Any]], *pairs: tuple[str, str], reference: str | None = "", **changes: Any
) -> Scenario:
    """A scenario of these configurations, which are compared with the first one unless there is a reference."""
    values = {
        "schema_version": 1, "name": "made", "title": "Made", "configurations": list(configurations),
        "reference": configurations[0]["name"] if reference == "" else reference,
        "contrasts": [{"configuration": one, "reference": other} for one, other in pairs],
    }  # fmt: skip
    return Scenario.model_validate(values | changes)


def answer(scenario: Scenario, found: Mapping[str, Mapping[str, Any]], **changes: Any) -> str:
    """The headline where each pair (`istio/baseline`) has these numbers; the others are slower."""
    return " ".join(format_headline(scenario, make_summary(scenario, found, **changes)))


def make_summary(scenario: Scenario, found: Mapping[str, Mapping[str, Any]], **changes: Any) -> SummaryRecord:
    made = []
    for pair in list_comparisons(scenario):
        numbers = found.get(f"{pair.configuration}/{pair.reference}", SLOWER)
        names = {"configuration": pair.configuration, "reference": pair.reference, "named": pair.named}
        made.append(contrast(**names, confirmatory=pair.reference == scenario.reference, **numbers))
    return summary(*made, reference=scenario.reference, **changes)


VERDICTS: dict[str, tuple[Mapping[str, Any], Mapping[str, Any], str]] = {
    "slower, then equivalent": (
        SLOWER,
        EQUIVALENT,
        """
        Istio's sidecars add 8.6 ms (+71 %, between +62 and +81 %) to the P95 of Bookinfo; its policies
        add nothing that matters (−3 %, between −7 and +1 %).""",
    ),
    "both slower": (
        SLOWER,
        SLOWER,
        """
        Istio's sidecars add 8.6 ms (+71 %, between +62 and +81 %) to the P95 of Bookinfo; its policies
        add 8.6 ms (+71 %, between +62 and +81 %).""",
    ),
    "larger by an unknown size": (
        LARGER,
        LARGER,
        """
        Istio's sidecars add 1.2 ms (+12 %, between +3 and +21 %) to the P95 of Bookinfo; its policies
        add 1.2 ms (+12 %, between +3 and +21 %).""",
    ),
    "equivalent, then faster": (
        EQUIVALENT,
        FASTER,
        """
        Istio's sidecars add nothing that matters to the P95 of Bookinfo (−3 %, between −7 and +1
        %); its policies remove 2.1 ms (−18 %, between −25 and −11 %) from that.""",
    ),
    "a mesh that is faster": (
        NOISE,
        EQUIVALENT,
        """
        Istio's sidecars remove 2.1 ms (−18 %, between −25 and −11 %) from the P95 of Bookinfo, which is
        noise unless another run shows it; its policies add nothing that matters (−3 %, between −7
        and +1 %).""",
    ),
    "perhaps more": (
        MAY_ADD,
        MAY_ADD,
        """
        Istio's sidecars may add to the P95 of Bookinfo, but it is not known whether they do (+23 %,
        between −6 and +62 %); its policies may add to that, but it is not known whether they do (+23
        %, between −6 and +62 %).""",
    ),
    "perhaps less": (
        SLOWER,
        MAY_REMOVE,
        """
        Istio's sidecars add 8.6 ms (+71 %, between +62 and +81 %) to the P95 of Bookinfo; its policies
        may remove from that, but it is not known whether they do (−10 %, between −22 and +4 %).""",
    ),
    "either": (
        EITHER,
        EITHER,
        """
        Whether Istio's sidecars raise or lower the P95 of Bookinfo is not known (−2 %, between −34
        and +47 %); whether its policies raise or lower that is not known (−2 %, between −34 and +47
        %).""",
    ),
    "invalid": (
        INVALID,
        INVALID,
        """
        Nothing is known about Istio's sidecars (istio has no valid repeat); nothing is known about its
        policies (istio has no valid repeat).""",
    ),
    "one repeat": (
        ONE_REPEAT,
        ONE_REPEAT,
        """
        Nothing is known about Istio's sidecars (one repeat has no spread); nothing is known about its
        policies (one repeat has no spread).""",
    ),
}


@pytest.mark.parametrize(("sidecars", "policies", "expected"), VERDICTS.values(), ids=list(VERDICTS))
def test_verb_follows_the_verdict(sidecars: Mapping[str, Any], policies: Mapping[str, Any], expected: str) -> None:
    """Slower adds, equivalent adds nothing that matters, faster removes; what is not known is named."""
    found = {"istio/baseline": sidecars, "istio-policies/istio": policies}
    assert answer(make_scenario(THREE), found) == " ".join(expected.split())


ADDS = "8.6 ms (+71 %, between +62 and +81 %)"
NOTHING = "nothing that matters"
SIZE = "(−3 %, between −7 and +1 %)"

WHO: dict[str, tuple[Scenario, Mapping[str, Mapping[str, Any]], str]] = {
    "two configurations": (
        make_scenario((BASELINE, KUMA)),
        {},
        f"""
        Kuma's sidecars add {ADDS} to the P95 of Bookinfo.""",
    ),
    "two meshes": (
        make_scenario((*THREE, KUMA, KUMA_POLICIES)),
        {"kuma/baseline": EQUIVALENT, "istio-policies/istio": EQUIVALENT, "kuma-policies/kuma": MAY_ADD},
        f"""
        Istio's sidecars add {ADDS} to the P95 of Bookinfo; its policies add {NOTHING} {SIZE}. Kuma's
        sidecars add {NOTHING} to the P95 of Bookinfo {SIZE}; its policies may add to that, but it is
        not known whether they do (+23 %, between −6 and +62 %).""",
    ),
    "meshes with each other": (
        make_scenario((BASELINE, ISTIO, KUMA), ("kuma", "istio")),
        {"kuma/istio": EQUIVALENT},
        f"""
        Istio's sidecars add {ADDS} to the P95 of Bookinfo. Kuma's sidecars add {ADDS} to the P95 of
        Bookinfo. kuma adds {NOTHING} to the P95 of istio {SIZE}.""",
    ),
    "gateways have names": (
        make_scenario(
            (BASELINE, KUMA, KUMA_GATEWAY, KUMA_DELEGATED), ("kuma-gateway", "kuma"), ("kuma-gateway-delegated", "kuma")
        ),
        {"kuma-gateway/kuma": EQUIVALENT},
        f"""
        Kuma's sidecars add {ADDS} to the P95 of Bookinfo; kuma-gateway adds {NOTHING} to that of kuma
        {SIZE}; kuma-gateway-delegated adds {ADDS} to that of kuma.""",
    ),
    "unnamed steps that replace something are compared with the reference": (
        make_scenario((BASELINE, ISTIO_MTLS, ISTIO_GATEWAY)),
        {},
        f"""
        istio-mtls adds {ADDS} to the P95 of Bookinfo; istio-gateway adds {ADDS} to that of Bookinfo.""",
    ),
    "named steps": (
        make_scenario((BASELINE, ISTIO_MTLS, ISTIO_POLICIES), ("istio-policies", "istio-mtls")),
        {},
        f"""
        istio-mtls adds {ADDS} to the P95 of Bookinfo; istio-policies adds {ADDS} to that of istio-mtls.""",
    ),
    "sidecars with a name of their own": (
        make_scenario((BASELINE, {**ISTIO, "name": "old"}, {**ISTIO_GATEWAY, "name": "new"})),
        {},
        f"""
        Istio's sidecars (old) add {ADDS} to the P95 of Bookinfo; new adds {ADDS} to that of old.""",
    ),
    "policies alone": (
        make_scenario((ISTIO, ISTIO_POLICIES)),
        {},
        f"""
        Istio's policies add {ADDS} to the P95 of istio.""",
    ),
    "a mesh as reference": (
        make_scenario(({**ISTIO_GATEWAY, "name": "one"}, {**KUMA_GATEWAY, "name": "other"})),
        {},
        f"""
        other adds {ADDS} to the P95 of one.""",
    ),
    "several without a mesh": (
        make_scenario((BASELINE, {"name": "next", "mesh": "none", "load": {"users": 30}})),
        {},
        f"""
        next adds {ADDS} to the P95 of baseline.""",
    ),
    "two builds": (
        make_scenario((BASELINE, {"name": "next", "mesh": "none", "images": {"reviews": "reviews:2"}})),
        {},
        f"next adds {ADDS} to the P95 of baseline.",
    ),
    "two builds of the proxy": (
        make_scenario((ISTIO, {**ISTIO, "name": "next", "images": {"sidecar": "proxy:2"}})),
        {"next/istio": EQUIVALENT},
        f"next adds {NOTHING} to the P95 of istio {SIZE}.",
    ),
    "a mesh with a build of its own": (
        make_scenario((BASELINE, {**ISTIO, "images": {"sidecar": "proxy:2"}}, ISTIO_POLICIES)),
        {},
        f"istio adds {ADDS} to the P95 of Bookinfo; istio-policies adds {ADDS} to that of istio.",
    ),
    "one configuration under two names": (
        make_scenario((BASELINE, COPY)),
        {"baseline-b/baseline": {**EQUIVALENT, "alike": True}},
        f"""
        baseline-b is baseline under another name, and no difference is found {SIZE}.""",
    ),
    "a false alarm": (
        make_scenario((BASELINE, COPY)),
        {"baseline-b/baseline": {**LARGER, "alike": True}},
        """
        baseline-b is baseline under another name, but a difference is found (+12 %, between +3 and
        +21 %): a false alarm.""",
    ),
    "named pair without a reference": (
        make_scenario((BASELINE, ISTIO), ("istio", "baseline"), reference=None),
        {},
        f"""
        Istio's sidecars add {ADDS} to the P95 of Bookinfo.""",
    ),
    "seven configurations": (
        make_scenario(
            (*THREE, {**ISTIO_GATEWAY, "name": "istio-in"}, KUMA, KUMA_POLICIES, KUMA_GATEWAY),
            ("istio-in", "istio"),
            ("kuma-gateway", "kuma"),
        ),
        {},
        f"""
        Istio's sidecars add {ADDS} to the P95 of Bookinfo; its policies add {ADDS}; istio-in adds
        {ADDS} to that of istio. Kuma's sidecars add {ADDS} to the P95 of Bookinfo; its policies add
        {ADDS}; kuma-gateway adds {ADDS} to that of kuma.""",
    ),
}


@pytest.mark.parametrize(("scenario", "found", "expected"), WHO.values(), ids=list(WHO))
def test_names_follow_the_scenario(scenario: Scenario, found: Mapping[str, Mapping[str, Any]], expected: str) -> None:
    """One sentence per mesh: its sidecars against the application, each step against the one before; what is neither
    sidecars nor policies has the name of its configuration."""
    assert answer(scenario, found) == " ".join(expected.split())


def test_run_without_comparison_has_no_headline() -> None:
    """Without a reference and pairs there is nothing to add to."""
    assert answer(make_scenario(THREE, reference=None), {}) == ""


def test_many_steps_have_no_headline() -> None:
    """A sentence of more than four clauses cannot be read aloud: the table answers."""
    steps = [{**ISTIO_GATEWAY, "name": f"step-{number}"} for number in range(6)]
    assert answer(make_scenario((BASELINE, *steps)), {}) == ""


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({"status": "interrupted", "valid": False}, "The run did not end: this is what it had measured by then."),
        ({"status": "invalid", "valid": False}, "The run is not valid: do not rely on this."),
        ({"valid": False}, "The run is not valid: do not rely on this."),
    ],
)
def test_headline_of_an_incomplete_run_ends_with_a_warning(changes: dict[str, Any], end: str) -> None:
    """A sentence that is quoted alone still has its limit."""
    assert answer(make_scenario(THREE), {}, **changes).endswith(f"). {end}")


@pytest.mark.parametrize(
    ("name", "title"), [("bookinfo", "Bookinfo"), ("online-boutique", "Online Boutique"), ("x", "X")]
)
def test_application_has_its_name_in_capitals(name: str, title: str) -> None:
    """The name of the application's definition is enough for its title."""
    made = make_scenario(THREE)
    renamed = made.model_copy(update={"application": made.application.model_copy(update={"name": name})})
    assert format_application(renamed) == title


def test_headline_is_first_on_a_terminal() -> None:
    """Only the mark of an invalid run is before it."""
    made = make_summary(make_scenario((BASELINE, ISTIO)), {})
    assert format_answers(made, top=("Answer.",)).splitlines()[:2] == ["Answer.", ""]
    invalid = made.model_copy(update={"valid": False})
    assert format_answers(invalid, top=("Answer.",)).splitlines()[1] == "Answer."


RATIOS = st.floats(0.05, 200)
VERDICT_NAMES = st.sampled_from(["slower", "faster", "different", "equivalent", "inconclusive", "invalid"])


@st.composite
def contrasts(draw: st.DrawFn) -> dict[str, Any]:
    """Numbers of a contrast, whether they fit the verdict or not; some have no interval."""
    low, ratio, high = sorted(draw(st.tuples(RATIOS, RATIOS, RATIOS)))
    ends = (low, high) if draw(st.booleans()) else (None, None)
    known = {"ratio": ratio, "ratio_low": ends[0], "ratio_high": ends[1], "delta_ms": (ratio - 1) * 10}
    return known | {"verdict": draw(VERDICT_NAMES), "alike": draw(st.booleans())}


@given(contrasts(), contrasts())
def test_no_number_without_its_interval(sidecars: dict[str, Any], policies: dict[str, Any]) -> None:
    """Whatever was measured, a size is followed by its interval, and every clause has one or says that nothing is
    known."""
    found = {"istio/baseline": sidecars, "istio-policies/istio": policies}
    clauses = answer(make_scenario(THREE), found).rstrip(".").split("; ")
    assert len(clauses) == 2
    size = r"(?:[+−][\d.]+ %|×[\d.\N{NARROW NO-BREAK SPACE}]+)"
    end = r"(?:[+−][\d.]+(?: %)?|×[\d.\N{NARROW NO-BREAK SPACE}]+)"
    for clause in clauses:
        bare = re.sub(rf"(?:[\d.]+ ms )?\({size}, between {end} and {end}\)", "", clause).replace("P95", "")
        assert not re.search(r"\d", bare), clause
        assert (bare != clause.replace("P95", "")) is not ("nothing is known" in clause.lower()), clause


def test_contrast_of_another_metric_is_not_the_answer() -> None:
    """The sentence is about P95 alone."""
    scenario = make_scenario((BASELINE, ISTIO))
    other: Contrast = contrast(**SLOWER, metric="p50_ms")
    assert format_headline(scenario, summary(other)) == ()
