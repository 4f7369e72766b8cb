"""Overrides of a scenario on the command line, and their errors."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.errors import InputError
from bench.scenario.loader import NO_OVERRIDES, load_scenario
from bench.scenario.overrides import Overrides


def refused(name: str, **overrides: Any) -> list[str]:
    """The error of loading a shipped scenario with overrides."""
    with pytest.raises(InputError) as raised:
        load_scenario(name, Overrides(**overrides))
    return str(raised.value).splitlines()


def test_flags_change_their_fields() -> None:
    """Each flag has the effect that its key has in the file."""
    changed = load_scenario(
        "smoke",
        Overrides(users="7", repeats="5", duration="60s", warmup="2s", rate="50/s", seed="9"),
    )
    load = changed.load
    assert (load.users, load.duration_s, load.warmup_s, load.rate_per_s) == (7, 60.0, 2.0, 50.0)
    assert (changed.repeats, changed.seed) == (5, 9)


def test_flags_accept_numbers_and_text() -> None:
    """Whole numbers are taken as text or as numbers."""
    assert load_scenario("smoke", Overrides(users=7, seed=0)) == load_scenario("smoke", Overrides(users="7", seed="0"))


def test_sets_any_key() -> None:
    """`--set` reaches each key by its path, also one that the file leaves out."""
    sets = (
        "load.users=50",
        "load.rate=600/min",
        "title=Something else",
        "reference=null",
        "application.reviews=v1",
        "configurations.0.load.users=9",
    )
    changed = load_scenario("smoke", Overrides(sets=sets))
    assert (changed.load.users, changed.load.rate_per_s) == (50, 10.0)
    assert (changed.title, changed.reference, changed.application.versions) == (
        "Something else",
        None,
        {"reviews": "v1"},
    )
    assert [changed.load_of(c.name).users for c in changed.configurations] == [9, 50, 50]


def test_sets_list() -> None:
    """`--set` takes a list of plain values where the key has one."""
    changed = load_scenario("smoke", Overrides(sets=("equalise=[tls, retries]",)))
    assert changed.equalise == ("tls", "retries")


def test_last_override_wins() -> None:
    """A later `--set` takes precedence over an earlier one, and a flag over both."""
    sets = ("repeats=4", "repeats=5", "load.users=6")
    changed = load_scenario("smoke", Overrides(sets=sets, users=7))
    assert (changed.repeats, changed.load.users) == (5, 7)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("load.usres=50", "--set load.usres: unknown key 'usres'; did you mean users?"),
        ("lod.users=50", "--set lod.users: unknown key 'lod'; did you mean load?"),
        ("load.users=fifty", "--set load.users: must be a whole number, not 'fifty'"),
        ("load.users=0", "--set load.users: must be at least 1, not 0"),
        ("load.duration=5", "--set load.duration: must be text with a unit (duration, 1s to 24h), not 5"),
        ("repeats.x=1", "--set repeats.x: repeats is 2, which has no keys"),
        ("configurations.3=x", "--set configurations.3: configurations has 3 entries, counted from 0, and no '3'"),
        ("quick=5", "--set quick: must be true or false, not 5"),
        ("repeats", "--set repeats: has no value; write PATH=VALUE, such as load.users=50"),
        ("repeats=", "--set repeats: has no value; write PATH=VALUE, such as load.users=50"),
        ("repeats=[1]", "--set repeats: must be a whole number, not a list"),
        ("equalise=[a]", "--set equalise: 'a' is not supported (supported: tls, workers, retries)"),
        ("equalise=tls", "--set equalise: must be a list, not 'tls'"),
        ("equalise=[[tls]]", "--set equalise: must be one value or a list of values, not '[[tls]]'"),
        ("repeats=a: b", "--set repeats: must be one value or a list of values, not 'a: b'"),
        ("repeats=*a", "--set repeats: the alias *a is not allowed here; write the value out"),
        ("repeats=!!a b", "--set repeats: the tag tag:yaml.org,2002:a is not allowed here; write plain YAML"),
    ],
)  # fmt: skip
def test_reports_invalid_override_under_its_flag(text: str, expected: str) -> None:
    """An error in a `--set` has the flag, not a line of a file that the user never wrote."""
    assert refused("smoke", sets=(text,)) == [expected]


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("users", "0", "--users: must be at least 1, not 0"),
        ("users", "many", "--users: must be a whole number, not 'many'"),
        ("repeats", "1.5", "--repeats: must be a whole number, not 1.5"),
        ("duration", "2 minits", "--duration: '2 minits' is not a duration with a unit (duration, 1s to 24h)"),
        ("warmup", "5", "--warmup: must be text with a unit (duration, 0s to 24h), not 5"),
        ("rate", "50", "--rate: must be text with a unit (rate, 1/min to 10000/s), not 50"),
        ("seed", "-1", "--seed: must be at least 0, not -1"),
    ],
)
def test_flags_have_the_checks_of_the_file(flag: str, value: str, expected: str) -> None:
    """A flag has the bounds and units of its key."""
    assert refused("smoke", **{flag: value}) == [expected]


def test_validates_only_the_override_that_wins() -> None:
    """A replaced override is not validated."""
    assert refused("smoke", sets=("repeats=x",), repeats="0") == ["--repeats: must be at least 1, not 0"]


def test_reports_short_window_under_the_flag() -> None:
    """The flag that makes the window shorter than its warm-up is in the error."""
    (message,) = refused("istio-policies", duration="10s")
    assert message.startswith("--duration: the window (10s) is shorter than the warm-up (30s)")


def test_reports_all_overrides_and_the_file_at_once(tmp_path: Path) -> None:
    """One pass reports the errors of the command line and of the file."""
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ntitle: 5\nconfigurations: [{name: a, mesh: none}]\n")
    assert refused(str(path), sets=("repeats", "load.usres=1"), users="0") == [
        "--set repeats: has no value; write PATH=VALUE, such as load.users=50",
        f"{path}:2: title: must be text, but YAML reads 5 here; put it in quotes",
        "--users: must be at least 1, not 0",
        "--set load.usres: unknown key 'usres'; did you mean users?",
    ]


@pytest.mark.parametrize("flag", ["users", "rate"])
def test_refuses_flag_that_configurations_override(tmp_path: Path, flag: str) -> None:
    """`--users` on a sweep over users would change nothing; the hint has the key that would."""
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\ntitle: x\nconfigurations:\n"
        "  - {name: one, mesh: none, load: {users: 3, rate: 5/s}}\n  - {name: two, mesh: none}\n"
    )
    value = {"users": "20", "rate": "7/s"}[flag]
    (message,) = refused(str(path), **{flag: value})
    assert message.startswith(f"--{flag}: has no effect on one, which have their own {flag}; leave --{flag} out")
    assert f"--set configurations.N.load.{flag}={value} " in message


def test_users_sweep_accepts_no_users_flag() -> None:
    """The shipped sweep sets users itself."""
    (message,) = refused("users-sweep", users="20")
    assert message.startswith("--users: has no effect on users-10, users-20, users-100")


def test_quick_shortens_windows_and_labels_scenario() -> None:
    """`--quick` leaves 5 s of warm-up and 15 s of window, and the scenario is labelled."""
    quick = load_scenario("istio-policies", Overrides(quick=True))
    assert (quick.load.warmup_s, quick.load.duration_s, quick.quick) == (5.0, 15.0, True)


def test_quick_never_lengthens_a_window() -> None:
    """A shorter scenario keeps its windows."""
    assert load_scenario("smoke", Overrides(quick=True)).load == load_scenario("smoke").load


def test_no_overrides_change_nothing() -> None:
    """Without overrides, the file is the scenario."""
    assert load_scenario("smoke", NO_OVERRIDES) == load_scenario("smoke")


PLACES = st.sampled_from(["load", "users", "0", "configurations", "name", "", "x"])


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(place=st.lists(PLACES, max_size=4).map(".".join), value=st.text() | st.sampled_from(["1", "null", "5s"]))
def test_any_override_is_applied_or_an_input_error(place: str, value: str) -> None:
    """Whatever follows `--set`, it is applied or reported as invalid under its flag."""
    flag = f"--set {place}"
    try:
        load_scenario("smoke", Overrides(sets=(f"{place}={value}",)))
        expected = ""
    except InputError as error:
        expected = str(error)
    assert not expected or expected.startswith(flag) or ".yaml:" in expected
