"""Two builds in runs of their own: how the ratio to the reference changed, and what CI gets of it."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import scipy.stats
from click.testing import CliRunner, Result

from bench.analysis.builds import (
    BuildChange,
    BuildComparison,
    BuildSide,
    Estimate,
    combine,
    compare_builds,
    subtract,
    subtract_runs,
)
from bench.analysis.conditions import find_condition_differences
from bench.analysis.contrast import Side, read_values
from bench.analysis.night import read_conditions
from bench.analysis.run_summary import order_blocks, summarise
from bench.cli.main import cli
from bench.cli.reports import _repeat_options
from bench.errors import InputError, InvalidMeasurementError, RegressionError
from bench.report.builds import describe, format_lines, format_markdown, make_error, write_junit
from bench.results.records import ClusterRecord
from bench.results.store import StoredRun, read_run, write_record
from bench.scenario.load_settings import EnvironmentValue
from tests.factory import ConfigSpec, RunSpec, make_run
from tests.issues import issue

OLD, NEW = 8.0, 12.0
DUET = RunSpec(
    (ConfigSpec("baseline"), ConfigSpec("istio", "istio", median_ms=OLD)),
    name="builds",
    design="duet",
    repeats=6,
    users=16,
    warmup_s=1,
    duration_s=8,
    block_sd=0.3,
    run_sd=0.02,
)

Make = Callable[..., StoredRun]


def with_median(made: RunSpec, median_ms: float) -> RunSpec:
    """The same run, with another latency of the mesh."""
    first, *others = made.configurations
    return replace(made, configurations=(first, *(replace(one, median_ms=median_ms) for one in others)))


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Make a run with an id of its own; `changes` are of its record."""
    numbers = count(1)

    def write(made: RunSpec = DUET, **changes: Any) -> StoredRun:
        number = next(numbers)
        run = make_run(tmp_path_factory.mktemp("run"), replace(made, seed=number))
        record = run.record.model_copy(update={"run_id": f"run-{number}", **changes})
        write_record(run.path / "run.json", record)
        return read_run(run.path)

    return write


@pytest.fixture(scope="module")
def base(make: Make) -> StoredRun:
    return make()


@pytest.fixture(scope="module")
def head(make: Make) -> StoredRun:
    """A run in which the mesh is half as slow again."""
    return make(with_median(DUET, NEW))


@pytest.fixture(scope="module")
def same(make: Make) -> StoredRun:
    """Another run of the same build."""
    return make()


def block_logs(run: StoredRun, configuration: str = "istio", reference: str = "baseline") -> tuple[Any, Any]:
    """The ln P95 of both sides of a run."""
    found = summarise(run)[0].configurations
    one, other = (Side(name, found[name].mesh, found[name].repeats) for name in (configuration, reference))
    values = read_values(one, other, "p95_ms", design=run.record.plan.design, order=order_blocks(run))
    return np.log(values.both[0]), np.log(values.both[1])


# --- the interval ---------------------------------------------------------------------------------------------


def test_errors_add_and_degrees_of_freedom_are_satterthwaites() -> None:
    """Two means of equal spread have the degrees of freedom of both; a side without an interval leaves none."""
    one = Estimate(0.2, 8, 0.03, 7)
    found = subtract(one, replace(one, value=0.1))
    assert found.value == pytest.approx(0.1)
    assert found.df == pytest.approx(14)
    assert found.error == pytest.approx(0.03 * math.sqrt(2))
    lone = subtract(one, Estimate(0.1, 1, reason="one block has no spread: no interval"))
    assert (lone.error, lone.reason) == (None, "one block has no spread: no interval")


def test_runs_of_a_side_are_averaged() -> None:
    """Two runs count equally, and their blocks know the mean of both better than either."""
    found = combine([Estimate(0.1, 8, 0.03, 7), Estimate(0.3, 8, 0.03, 7)])
    assert found.value == pytest.approx(0.2)
    assert found.n == 16
    assert found.error == pytest.approx(0.03 / math.sqrt(2))
    assert found.df == pytest.approx(14)


def test_spread_between_runs_is_that_of_the_t_test() -> None:
    """From four runs on the change is the two-sample t test of the runs' means."""
    heads, bases = [0.31, 0.35, 0.30], [0.20, 0.26]
    found = subtract_runs(heads, bases)
    expected = scipy.stats.ttest_ind(heads, bases)
    assert found.df == expected.df == 3
    assert found.value / (found.error or 0) == pytest.approx(expected.statistic)
    with pytest.raises(ValueError, match="needs 4"):
        subtract_runs([0.1, 0.2], [0.3])
    assert subtract_runs([0.1, 0.1], [0.1, 0.1]).reason == "all runs are equal: no interval (resolution)"


@pytest.mark.parametrize("sd", [0.0, 0.02, 0.05])
@pytest.mark.parametrize(("heads", "bases"), [(2, 2), (3, 1), (3, 3)])
def test_interval_of_runs_holds_the_change_in_19_of_20(sd: float, heads: int, bases: int) -> None:
    """With four runs or more the interval has its coverage, however much runs differ from each other."""
    rng, held = np.random.default_rng(14), 0
    for _ in range(1000):
        sides = [rng.normal(0, sd, n) + rng.normal(0, 0.08 / math.sqrt(8), n) for n in (heads, bases)]
        found = subtract_runs(*(side.tolist() for side in sides))
        held += abs(found.value) <= (found.error or 0) * scipy.stats.t.ppf(0.975, heads + bases - 2)
    assert 0.93 <= held / 1000 <= 0.97


def test_change_of_a_duet_is_of_paired_blocks(base: StoredRun, head: StoredRun) -> None:
    """Noise that a block's configurations share is in no interval: both sides are the paired one of their run."""
    (change,) = compare_builds([base], [head]).changes
    differences = [np.subtract(*block_logs(run)) for run in (base, head)]
    assert change.base.value == pytest.approx(math.exp(differences[0].mean()))
    assert change.change == pytest.approx(math.exp(differences[1].mean() - differences[0].mean()))
    assert (change.pair, change.unit, change.base.n, change.head.n) == ("istio against baseline", "blocks", 6, 6)
    assert change.verdict == "slower"
    assert change.change_low is not None
    assert change.change_low > 1.1


def test_change_of_a_sequential_run_is_of_welchs_intervals(make: Make) -> None:
    """Without shared blocks both configurations' spreads of both runs are in the interval."""
    sequential = replace(DUET, design="sequential", repeats=3, block_sd=0.0)
    runs = [make(sequential), make(with_median(sequential, NEW))]
    (change,) = compare_builds([runs[0]], [runs[1]]).changes
    logs = [side for run in runs for side in block_logs(run)]
    error = math.sqrt(sum(side.var(ddof=1) / 3 for side in logs))
    assert change.degrees_of_freedom is not None
    half = error * scipy.stats.t.ppf(0.975, change.degrees_of_freedom)
    assert math.log((change.change_high or 0) / (change.change_low or 1)) == pytest.approx(2 * half)
    assert change.base.n == 3


def test_four_runs_are_compared_by_run(make: Make, base: StoredRun, head: StoredRun, same: StoredRun) -> None:
    """With two runs a side the run is the unit, and the output says so; with three in all it is still the block."""
    runs = [base, same, head, make(with_median(DUET, NEW))]
    found = compare_builds(runs[:2], runs[2:])
    (change,) = found.changes
    assert (change.unit, change.degrees_of_freedom) == ("runs", 2)
    assert "the intervals come from the spread between 4 runs" in format_lines(found)
    three = compare_builds(runs[:1], runs[2:])
    assert three.changes[0].unit == "blocks"
    assert "leave out what varies from run to run; 4 runs or more would include it" in format_lines(three)


def test_absolute_p95_only_without_a_reference(make: Make) -> None:
    """A scenario with one configuration has nothing to compare it with: P95 itself is judged."""
    alone = replace(
        DUET, configurations=(ConfigSpec("only"),), reference=None, design="sequential", repeats=3, block_sd=0.0
    )
    found = compare_builds([make(alone)], [make(replace(alone, configurations=(ConfigSpec("only", median_ms=12),)))])
    (change,) = found.changes
    assert (change.pair, change.reference, change.verdict) == ("only", None, "slower")
    assert " ms -> " in format_lines(found)


# --- what may be compared -------------------------------------------------------------------------------------


def test_refuses_runs_of_different_designs(make: Make, base: StoredRun) -> None:
    """They estimate different ratios, so that not even --force compares them."""
    other = make(replace(DUET, design="sequential", repeats=2))
    with pytest.raises(InputError, match="runs of different designs are never compared"):
        compare_builds([base], [other], force=True)
    result = CliRunner().invoke(cli, ["compare", str(base.path), str(other.path), "--force"])
    assert isinstance(result.exception, InputError)


def test_refuses_other_conditions(make: Make, base: StoredRun) -> None:
    """Another load is no build. With --force the output begins with the difference; with --fail-on there is none."""
    other = make(replace(DUET, users=24))
    with pytest.raises(InputError, match=r"different conditions \(load of baseline: .*--force"):
        compare_builds([base], [other])
    with pytest.raises(InputError, match="measure both in the same place"):
        compare_builds([base], [other], fail_on="slower", force=True)
    assert format_lines(compare_builds([base], [other], force=True)).startswith("DIFFERENT CONDITIONS: load of")


def test_place_of_an_unrecorded_value_is_no_condition(make: Make, base: StoredRun) -> None:
    """Two CI jobs may keep the same token under different names; another literal value is another load."""

    def with_env(**value: str) -> StoredRun:
        load = base.record.scenario.load.model_copy(update={"env": {"TOKEN": EnvironmentValue(**value)}})
        scenario = base.record.scenario.model_copy(update={"load": load})
        return replace(base, record=base.record.model_copy(update={"scenario": scenario}))

    here, there, literal = with_env(env="MINE"), with_env(file="/run/token"), with_env(value="x")
    assert find_condition_differences(here, there) == ()
    assert any(text.startswith("load of ") for text in find_condition_differences(here, literal))


def test_builds_may_differ(make: Make, base: StoredRun) -> None:
    """Images and versions are what is compared; they are listed, and are no conditions."""
    scenario = base.record.scenario
    own = scenario.configuration("istio").model_copy(update={"images": {"sidecar": "example.org/p:2"}})
    changed = scenario.model_copy(update={"configurations": (scenario.configuration("baseline"), own)})
    environment = base.record.environment.model_copy(update={"envoy": "2.0"})
    found = compare_builds([base], [make(scenario=changed, environment=environment)], fail_on="different")
    assert found.conditions == ()
    assert found.builds == (
        f"envoy: {base.record.environment.envoy} / 2.0",
        "istio: images: none / sidecar=example.org/p:2",
    )
    assert found.changes[0].hidden == ()


def test_names_what_the_ratio_hides(make: Make) -> None:
    """An application that is new in the reference, too, may be slower in both: a ratio does not show that."""
    cluster = {"version": "1.34", "nodes": 1, "images": {"reviews": "a:1"}, "mesh_values": {}, "mesh_versions": {}}
    runs = [make(cluster=ClusterRecord.model_validate(cluster | {"images": {"reviews": f"a:{n}"}})) for n in (1, 2)]
    found = compare_builds([runs[0]], [runs[1]])
    assert found.builds == ("images: reviews=a:1 / reviews=a:2",)
    assert "the builds differ in the reference baseline, too (images: reviews=a:1 / reviews=a:2)" in format_lines(found)


def test_share_of_requests_is_a_condition(make: Make) -> None:
    """Pods that request less are scheduled otherwise: such a night begins a new baseline, and is no build."""
    known = {"version": "1.34", "nodes": 1, "images": {}, "mesh_values": {}, "mesh_versions": {}}
    whole, scaled = (
        make(cluster=ClusterRecord.model_validate(known | {"scale_requests": share})) for share in (1.0, 0.25)
    )
    assert "share of requests" not in read_conditions(whole)
    assert read_conditions(scaled)["share of requests"] == "0.25"
    with pytest.raises(InputError, match=r"different conditions \(share of requests: 1.0 / 0.25\)"):
        compare_builds([whole], [scaled], fail_on="slower")


def test_values_of_a_mesh_are_a_build(make: Make) -> None:
    """Files of --mesh-values are compared by their content, which a run's folder keeps."""
    runs = [make(), make()]
    for number, run in enumerate(runs):
        (run.path / "values").mkdir()
        (run.path / "values" / "istio-1-mine.yaml").write_text(f"number: {number}\n", "utf-8")
    assert compare_builds([runs[0]], [runs[1]], fail_on="slower").builds == ("mesh_values",)


def test_runs_of_a_side_are_repetitions(make: Make, base: StoredRun, head: StoredRun) -> None:
    """Runs under different conditions would spread by these; a run that is named twice would count twice."""
    other = make(replace(DUET, repeats=7))
    with pytest.raises(InputError, match=r"is no repetition of run-\d+: they differ in scenario"):
        compare_builds([base, other], [head])
    with pytest.raises(InputError, match="is named twice"):
        compare_builds([base], [base])
    with pytest.raises(InputError, match="--head: names no run"):
        compare_builds([base], [])


def test_refuses_a_run_that_has_not_ended(make: Make, base: StoredRun) -> None:
    with pytest.raises(InputError, match="has not ended"):
        compare_builds([base], [make(status="running")])


# --- verdicts and exit codes ----------------------------------------------------------------------------------


def change(verdict: str, **changes: Any) -> BuildChange:
    """A change of +8 %, between +2 and +14 %, unless `changes` say otherwise."""
    side = BuildSide(value=1.5, low=1.4, high=1.6, n=8)
    known = {"configuration": "istio", "reference": "baseline", "base": side, "head": side, "unit": "blocks"}
    interval = {"change": 1.08, "change_low": 1.02, "change_high": 1.14, "degrees_of_freedom": 14.0}
    return BuildChange.model_validate(known | interval | {"verdict": verdict} | changes)


@pytest.mark.parametrize(
    ("fail_on", "sides", "code"),
    [
        (None, "base head", 0),
        ("slower", "base head", 6),
        ("different", "base head", 6),
        ("slower", "head base", 0),
        ("different", "head base", 6),
        ("slower", "base same", 0),
        ("different", "base same", 0),
    ],
)
def test_fails_on_what_was_asked(
    base: StoredRun, head: StoredRun, same: StoredRun, fail_on: Any, sides: str, code: int
) -> None:
    """`slower` fails for a change upwards beyond the margin, `different` for one in either direction; without
    --fail-on nothing fails."""
    one, other = (({"base": base, "head": head, "same": same})[name] for name in sides.split())
    found = compare_builds([one], [other], fail_on=fail_on)
    assert found.exit_code == code
    error = make_error(found)
    assert isinstance(error, RegressionError) if code else error is None


def test_margin_decides(base: StoredRun, head: StoredRun) -> None:
    """A change that is certain and within the margin is no failure; the default is the scenario's margin."""
    assert compare_builds([base], [head]).margin == 0.1
    assert compare_builds([base], [head], margin=1.0, fail_on="slower").exit_code == 0


def test_invalid_side_is_exit_5(make: Make, base: StoredRun) -> None:
    """A run without all of its planned repeats gives no verdict, as `run` itself gave none."""
    trials = {f"{number:02}-istio-1": {"issues": (issue("restart"),)} for number in (1, 2)}  # whichever comes first
    damaged = make(replace(DUET, trial_changes=trials))
    found = compare_builds([base], [damaged], fail_on="slower")
    assert (found.exit_code, found.changes[0].verdict) == (5, "invalid")
    error = make_error(found)
    assert isinstance(error, InvalidMeasurementError)
    assert "5 of 6 planned repeats of istio are valid" in str(error)
    assert compare_builds([base], [damaged]).exit_code == 0


# --- output ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (change("slower"), "slower: +8.0 %, between +2 and +14 %, which is beyond the margin of 5.0 %"),
        (change("equivalent"), "equivalent: +8.0 %, between +2 and +14 %, which is within the margin of 5.0 %"),
        (
            change("different"),
            "different: +8.0 %, between +2 and +14 %; whether that is beyond the margin of 5.0 % is not known",
        ),
        (
            change("inconclusive", change_low=None, change_high=None, issues=(issue("no-interval", "one repeat"),)),
            "inconclusive: the change is +8.0 %, without an interval",
        ),
        (change("invalid", issues=(issue("no-valid-repeat", "istio has no valid repeat"),)), "invalid: "),
    ],
)
def test_each_verdict_has_its_sentence(found: BuildChange, text: str) -> None:
    """A change is said with its size, its interval, and where the margin is."""
    assert describe(found, 0.05).startswith(text)


def test_junit_and_markdown(tmp_path: Path) -> None:
    """A change that fails is a failure, an invalid one an error, an undecided one is skipped; the table has all."""
    changes = (
        change("slower", fails=True),
        change("invalid", configuration="kuma", issues=(issue("no-valid-repeat", "kuma has no valid repeat"),)),
        change("inconclusive", configuration="other"),
        change("different", configuration="free"),
    )
    found = BuildComparison(
        scenario="builds",
        design="duet",
        base=("one",),
        head=("two",),
        margin=0.05,
        fail_on="slower",
        exit_code=6,
        builds=("images: none / reviews=a:2",),
        conditions=(),
        changes=changes,
    )
    write_junit(found, tmp_path / "junit.xml")
    suite = ET.parse(tmp_path / "junit.xml").getroot()  # noqa: S314  # it is our own
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors"), suite.get("skipped")) == (
        "4",
        "1",
        "1",
        "1",
    )
    text = format_markdown(found)
    assert "| istio against baseline | 1.50 | 1.50 | +8.0 % | [+2.0 %, +14 %] | **slower** (fails) |" in text
    assert "- builds: images: none / reviews=a:2" in text
    hostile = change("invalid", configuration="<b>|", issues=(issue("no-valid-repeat", "a|b"),))
    text = format_markdown(found.model_copy(update={"scenario": "# x", "changes": (hostile,)}))
    assert text.startswith(r"## \# x: head against base")
    assert text.count(r"\<b\>\| against baseline") == 2


@pytest.mark.parametrize(
    ("words", "read"),
    [
        ("--base a b --head c --json", "--base a --base b --head c --json"),
        ("--head c d e --margin 5% --base a", "--head c --head d --head e --margin 5% --base a"),
        ("a b --force", "a b --force"),
        ("--base a --base b", "--base a --base b"),
    ],
)
def test_sides_take_several_runs(words: str, read: str) -> None:
    """A shell's pattern, such as results/*-old-*, names all runs of a side."""
    assert list(_repeat_options(words.split())) == read.split()


def invoke(*words: object) -> Result:
    return CliRunner().invoke(cli, ["compare", *map(str, words)])


def test_command_compares_sides(base: StoredRun, head: StoredRun, tmp_path: Path) -> None:
    """JSON has everything, JUnit is a file, and the exit code is that of the failure."""
    words = ["--base", base.path, "--head", head.path, "--fail-on", "slower", "--margin", "5%"]
    result = invoke(*words, "--json", "--junit", tmp_path / "out.xml")
    assert isinstance(result.exception, RegressionError)
    found = json.loads(result.output)
    assert (found["exit_code"], found["margin"], found["fail_on"]) == (6, 0.05, "slower")
    assert found["changes"][0]["verdict"] == "slower"
    assert (tmp_path / "out.xml").is_file()
    assert invoke(*words, "--markdown").output.startswith("## builds: head against base")


def test_two_runs_alone_are_compared_as_before(base: StoredRun, head: StoredRun) -> None:
    """The form without sides has one line per configuration, and none of the new options."""
    result = invoke(base.path, head.path)
    assert result.exit_code == 0
    assert result.output.splitlines()[1].startswith("baseline: ")
    for words, message in (
        ([base.path, head.path, "--fail-on", "slower"], "--fail-on cannot go with two runs alone"),
        ([base.path], "give two runs, not 1"),
        (["--base", base.path, "--head", head.path, "--margin", "5"], "--margin: '5' is not a share"),
        (["--base", base.path, "--head", head.path, "--margin", "0%"], "is not from 0.1% to 100%"),
        (["--base", base.path, "--head", head.path, "--json", "--markdown"], "are two outputs"),
    ):
        assert message in str(invoke(*words).exception)
