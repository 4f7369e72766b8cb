"""Quantities in and out: `bench.units`."""

import math
import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import units

NOTHING = [None, math.nan, math.inf, -math.inf]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120s", 120),
        ("100ms", 0.1),
        ("1.5min", 90),
        ("2m", 120),
        ("24h", 86400),
        ("250us", 0.00025),
        (" 5 s ", 5),
    ],
)
def test_reads_durations_in_every_unit(text: str, seconds: float) -> None:
    """A duration is a number and a unit, and becomes seconds."""
    assert units.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "-5s", "+5s", "nan", "inf s", "2 minits", "1e3s", "5s 3", "٥s", ".5s"])
def test_refuses_invalid_duration_with_an_example(text: str) -> None:
    """Anything but digits with a known unit is refused, and the message has a valid one."""
    with pytest.raises(ValueError, match="120s"):
        units.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("3s", 3), ("500ms", 0.5), ("1m30s", 90), ("1h", 3600), ("0s", 0), ("1.5h0.5s", 5400.5)]
)
def test_reads_durations_of_manifests(text: str, seconds: float) -> None:
    """Kubernetes and Go join several numbers with units, which are added."""
    assert units.parse_go_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "3", "s", "-3s", "3 s", "1m 30s", "1d", "3sec", "1e3s"])
def test_refuses_invalid_duration_of_manifest(text: str) -> None:
    """The message has a valid one."""
    with pytest.raises(ValueError, match="1m30s"):
        units.parse_go_duration(text)


@pytest.mark.parametrize(("text", "rate"), [("50/s", 50), ("600/min", 10), ("600/m", 10), ("36 / h", 0.01)])
def test_reads_rates(text: str, rate: float) -> None:
    """A rate is a number per second, minute or hour, and becomes events per second."""
    assert units.parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["50", "50/", "/s", "-1/s", "50/ms", "nan/s", "50 rps"])
def test_refuses_invalid_rate_with_an_example(text: str) -> None:
    """A rate without its time, or with an unknown one, is refused."""
    with pytest.raises(ValueError, match="50/s"):
        units.parse_rate(text)


@pytest.mark.parametrize(("text", "share"), [("10%", 0.1), ("0.5 %", 0.005), ("100%", 1)])
def test_reads_percentages(text: str, share: float) -> None:
    """A percentage becomes a share of one."""
    assert units.parse_percent(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["10", "0.1", "%", "-1%", "ten%"])
def test_refuses_invalid_percentage_with_an_example(text: str) -> None:
    """A bare number is refused: 10 could be 10 % or ten times."""
    with pytest.raises(ValueError, match="10%"):
        units.parse_percent(text)


@given(st.integers(1, 10**6).map(lambda ms: ms / 1000) | st.integers(1, 86400).map(float))
def test_durations_of_one_unit_round_trip(seconds: float) -> None:
    """A duration that is printed with one unit is read as the same duration, to the digits printed."""
    text = units.format_duration(seconds)
    if " " not in text:
        assert units.parse_duration(text) == pytest.approx(seconds, rel=0.0085)


@given(st.integers(1, 999).map(lambda ms: ms / 1000) | st.integers(0, 59).map(float))
def test_prints_whole_milliseconds_and_seconds_exactly(seconds: float) -> None:
    """Typical durations lose nothing when they are printed."""
    assert units.parse_duration(units.format_duration(seconds)) == pytest.approx(seconds, rel=1e-12)


@given(st.floats(0, 1e9))
def test_never_prints_sixty_of_a_unit(seconds: float) -> None:
    """Rounding carries over: there is no `60s` and no `60min`."""
    assert not re.search(r"\b60(s|min)", units.format_duration(seconds))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.000005, "5us"),
        (0.1, "100ms"),
        (15, "15s"),
        (59.96, "1min"),
        (90, "1min 30s"),
        (3599.7, "1h"),
        (3690, "1h 2min"),
        (86400, "24h"),
        (math.nan, "n/a"),
        (math.inf, "n/a"),
    ],
)
def test_prints_durations_in_fitting_units(seconds: float, text: str) -> None:
    """At most two units, and no number for what is none."""
    assert units.format_duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.00"), (1.234, "1.23"), (9.996, "10.0"), (12.34, "12.3"), (99.96, "100"), (435.56, "436")],
)
def test_prints_latencies_and_rates_with_three_digits(value: float, text: str) -> None:
    """Both have their significant digits only."""
    assert units.format_ms(value) == units.format_rps(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(50.69, "+50.7"), (-3.2, "−3.20"), (0.0, "+0.00"), (-0.0, "+0.00"), (-0.001, "+0.00")]
)
def test_prints_differences_with_a_sign(value: float, text: str) -> None:
    """A difference always has its sign, and zero is never negative."""
    assert units.format_delta(value) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(1.42, "+42 %"), (1.116, "+12 %"), (0.95, "−5.0 %"), (1.0, "+0.0 %"), (1 - 1e-9, "+0.0 %"), (10.99, "+999 %")],
)
def test_prints_ratios_as_changes(ratio: float, text: str) -> None:
    """A ratio of 1.42 is a change of +42 %; small changes have a decimal."""
    assert units.format_change(ratio) == text


@pytest.mark.parametrize(
    ("ratio", "factor"), [(11.0, "11.0"), (130.5, "130"), (1315.73, "1\N{NARROW NO-BREAK SPACE}316")]
)
def test_prints_large_changes_as_factors(ratio: float, factor: str) -> None:
    """Where a percentage would have four digits or more, changes, effects and certainties are printed as factors."""
    assert units.format_change(ratio) == f"×{factor}"
    assert units.format_effect(ratio - 1) == f"a factor of {factor}"
    assert units.format_within(1 / ratio, ratio) == f"a factor of {factor}"
    assert units.format_effect(1.15) == "115 %"


def test_prints_intervals_like_their_ends() -> None:
    """An interval is printed by the formatter of its ends, and needs both."""
    assert units.format_interval(1.234, 123.4) == "[1.23, 123]"
    assert units.format_interval(1.1, 1.9, units.format_ratio) == "[1.10, 1.90]"
    assert units.format_change_interval(1.2, 1.68) == "+20 % to +68 %"
    assert units.format_within(0.8, 1.25) == "±25 %"


@pytest.mark.parametrize("value", NOTHING)
def test_prints_missing_numbers_as_na(value: float | None) -> None:
    """Missing, not-a-number and infinity are `n/a` in every formatter."""
    one_value = [
        units.format_ms,
        units.format_rps,
        units.format_delta,
        units.format_ratio,
        units.format_change,
        units.format_effect,
        units.format_percent,
        units.format_bytes,
    ]
    two_values = [units.format_interval, units.format_change_interval, units.format_within]
    assert {formatter(value) for formatter in one_value} == {"n/a"}
    assert {formatter(value, 1.0) for formatter in two_values} == {"n/a"}
    assert {formatter(1.0, value) for formatter in two_values} == {"n/a"}


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023.7, "1 KiB"), (18 * 2**20, "18 MiB"), (150 * 2**20, "150 MiB"), (3 * 2**30, "3 GiB")],
)
def test_prints_bytes_in_binary_units(count: float, text: str) -> None:
    """Memory is printed in the largest unit that leaves a number of at least one."""
    assert units.format_bytes(count) == text


@pytest.mark.parametrize(("share", "text"), [(0.0, "0 %"), (0.0123, "1.2 %"), (0.123, "12 %"), (1.0, "100 %")])
def test_prints_shares_as_percentages(share: float, text: str) -> None:
    """A share has a decimal below ten percent."""
    assert units.format_percent(share) == text


def test_separates_thousands_with_thin_spaces() -> None:
    """A comma or a point could be read as a decimal."""
    assert units.format_count(1234567) == "1\N{NARROW NO-BREAK SPACE}234\N{NARROW NO-BREAK SPACE}567"
    assert [units.format_tick(value) for value in (0.5, 10, 12500)] == [
        "0.5",
        "10",
        "12\N{NARROW NO-BREAK SPACE}500",
    ]


def test_prints_times_in_utc() -> None:
    """A time of another zone is printed as the same moment in UTC."""
    at = datetime(2026, 11, 23, 4, 15, tzinfo=timezone(timedelta(hours=1)))
    assert units.format_time(at) == "2026-11-23 03:15 UTC"


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ((), ""),
        (("a",), "a"),
        (("a", "b"), "a, b"),
        (("a", "b", "c"), "a, b and 1 more"),
        ("a" * 2002, "a, a and 2 000 more"),
    ],
)
def test_long_list_names_the_first_ones(names: Sequence[str], text: str) -> None:
    """Nothing is left out without a count of it."""
    assert units.format_first(names, 2) == text.replace("2 000", units.format_count(2000))
