"""What the command line changes in a scenario, and what is said when it cannot."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.errors import InputError
from bench.scenario.loader import NO_OVERRIDES, load_scenario
from bench.scenario.overrides import Overrides


def refused(name: str, **overrides: Any) -> list[str]:
    """What is said when a shipped scenario is loaded with overrides."""
    with pytest.raises(InputError) as raised:
        load_scenario(name, Overrides(**overrides))
    return str(raised.value).splitlines()


def test_flags_change_the_fields_of_their_names() -> None:
    """Each flag has the effect that its key has in the file."""
    changed = load_scenario(
        "smoke",
        Overrides(users="7", repeats="5", duration="60s", warmup="2s", rate="50/s", seed="9"),
    )
    load = changed.load
    assert (load.users, load.duration_s, load.warmup_s, load.rate_per_s) == (7, 60.0, 2.0, 50.0)
    assert (changed.repeats, changed.seed) == (5, 9)


def test_flags_may_be_numbers_already() -> None:
    """Whole numbers are taken as text or as numbers."""
    assert load_scenario("smoke", Overrides(users=7, seed=0)) == load_scenario("smoke", Overrides(users="7", seed="0"))


def test_any_key_can_be_set() -> None:
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
    assert (changed.title, changed.reference, changed.application.reviews) == ("Something else", None, "v1")
    assert [changed.load_of(c.name).users for c in changed.configurations] == [9, 50, 50]


def test_a_list_can_be_set() -> None:
    """`--set` takes a list of plain values where the key has one."""
    changed = load_scenario("smoke", Overrides(sets=("equalise=[tls, retries]",)))
    assert changed.equalise == ("tls", "retries")


def test_the_last_override_wins() -> None:
    """A later `--set` wins over an earlier one, and a flag over both."""
    sets = ("repeats=4", "repeats=5", "load.users=6")
    changed = load_scenario("smoke", Overrides(sets=sets, users=7))
    assert (changed.repeats, changed.load.users) == (5, 7)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("load.usres=50", "--set load.usres: unknown key 'usres'; did you mean users?"),
        ("lod.users=50", "--set lod.users: unknown key 'lod'; did you mean load?"),
        ("load.users=fifty", "--set load.users: must be a whole number, not 'fifty'"),
        ("load.users=0", "--set load.users: must be at least 1, not 0"),
        ("load.duration=5", "--set load.duration: must be text with a unit (duration, 1s to 24h), not 5"),
        ("repeats.x=1", "--set repeats.x: repeats is 2, which has no keys"),
        ("configurations.3=x", "--set configurations.3: configurations has 3 entries, from 0; no '3'"),
        ("quick=5", "--set quick: must be true or false, not 5"),
        ("repeats", "--set repeats: has no value; write PATH=VALUE, such as load.users=50"),
        ("repeats=", "--set repeats: has no value; write PATH=VALUE, such as load.users=50"),
        ("repeats=[1]", "--set repeats: must be a whole number, not a list"),
        ("equalise=[a]", "--set equalise: 'a' is not supported (supported: tls, workers, retries)"),
        ("equalise=tls", "--set equalise: must be a list, not 'tls'"),
        ("equalise=[[tls]]", "--set equalise: must be one value, or a list of some, not '[[tls]]'"),
        ("repeats=a: b", "--set repeats: must be one value, or a list of some, not 'a: b'"),
        ("repeats=*a", "--set repeats: the alias *a is not allowed here; write the value out"),
        ("repeats=!!a b", "--set repeats: the tag tag:yaml.org,2002:a is not allowed here; write plain YAML"),
    ],
)  # fmt: skip
def test_a_wrong_override_is_told_under_its_flag(text: str, said: str) -> None:
    """What is wrong with a `--set` is told as such, not as a line of a file that the user never wrote."""
    assert refused("smoke", sets=(text,)) == [said]


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("users", "0", "--users: must be at least 1, not 0"),
        ("users", "many", "--users: must be a whole number, not 'many'"),
        ("repeats", "1.5", "--repeats: must be a whole number, not 1.5"),
        ("duration", "2 minits", "--duration: '2 minits' is no duration with a unit (duration, 1s to 24h)"),
        ("warmup", "5", "--warmup: must be text with a unit (duration, 0s to 24h), not 5"),
        ("rate", "50", "--rate: must be text with a unit (rate, 1/min to 10000/s), not 50"),
        ("seed", "-1", "--seed: must be at least 0, not -1"),
    ],
)
def test_flags_pass_the_checks_of_the_file(flag: str, value: str, said: str) -> None:
    """A flag has the bounds and units of its key."""
    assert refused("smoke", **{flag: value}) == [said]


def test_only_the_override_that_wins_is_told() -> None:
    """What a later override replaces is not checked, and not blamed."""
    assert refused("smoke", sets=("repeats=x",), repeats="0") == ["--repeats: must be at least 1, not 0"]


def test_a_window_that_a_flag_makes_too_short_is_told_under_the_flag() -> None:
    """The window of a shipped scenario is not shorter than its warm-up, whoever shortens it."""
    (message,) = refused("istio-policies", duration="10s")
    assert message.startswith("--duration: the window of 10s is shorter than the warm-up of 30s")


def test_all_wrong_overrides_and_the_file_are_told_at_once(tmp_path: Path) -> None:
    """One pass names what is wrong on the command line and in the file."""
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\ntitle: 5\nconfigurations: [{name: a, mesh: none}]\n")
    assert refused(str(path), sets=("repeats", "load.usres=1"), users="0") == [
        "--set repeats: has no value; write PATH=VALUE, such as load.users=50",
        f"{path}:2: title: must be text, but YAML reads 5 here; put it in quotes",
        "--users: must be at least 1, not 0",
        "--set load.usres: unknown key 'usres'; did you mean users?",
    ]


@pytest.mark.parametrize("flag", ["users", "rate"])
def test_a_flag_that_configurations_would_swallow_is_refused(tmp_path: Path, flag: str) -> None:
    """`--users` on a sweep over users would change nothing, and is told so with what would."""
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\ntitle: x\nconfigurations:\n"
        "  - {name: one, mesh: none, load: {users: 3, rate: 5/s}}\n  - {name: two, mesh: none}\n"
    )
    value = {"users": "20", "rate": "7/s"}[flag]
    (message,) = refused(str(path), **{flag: value})
    assert message.startswith(f"--{flag}: has no effect on one, with {flag} of their own; leave --{flag} out")
    assert f"--set configurations.N.load.{flag}={value} " in message


def test_the_sweep_over_users_takes_no_users() -> None:
    """The shipped sweep sets users itself."""
    (message,) = refused("users-sweep", users="20")
    assert message.startswith("--users: has no effect on users-10, users-20, users-100")


def test_quick_shortens_the_windows_and_labels_the_scenario() -> None:
    """`--quick` leaves 5 s of warm-up and 15 s of window, and the scenario says so."""
    quick = load_scenario("istio-policies", Overrides(quick=True))
    assert (quick.load.warmup_s, quick.load.duration_s, quick.quick) == (5.0, 15.0, True)


def test_quick_never_makes_a_window_longer() -> None:
    """A scenario that is quicker than `--quick` stays as it is, but for the label."""
    assert load_scenario("smoke", Overrides(quick=True)) == load_scenario("smoke").model_copy(update={"quick": True})


def test_no_overrides_change_nothing() -> None:
    """Without overrides, the file is the scenario."""
    assert load_scenario("smoke", NO_OVERRIDES) == load_scenario("smoke")


PLACES = st.sampled_from(["load", "users", "0", "configurations", "name", "", "x"])


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(place=st.lists(PLACES, max_size=4).map(".".join), value=st.text() | st.sampled_from(["1", "null", "5s"]))
def test_any_override_is_applied_or_an_input_error(place: str, value: str) -> None:
    """Whatever is typed after `--set`, it is applied or told as wrong under its flag."""
    flag = f"--set {place}"
    try:
        load_scenario("smoke", Overrides(sets=(f"{place}={value}",)))
        said = ""
    except InputError as error:
        said = str(error)
    assert not said or said.startswith(flag) or ".yaml:" in said
