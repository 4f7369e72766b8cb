"""How a report prints numbers."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from bench.units import format_change_interval, format_counted, format_tick, format_time, format_within


def test_interval_of_a_ratio_is_two_signed_changes() -> None:
    """1.2 to 1.68 is +20 % to +68 %; half an interval is none."""
    assert format_change_interval(1.2, 1.68) == "+20 % to +68 %"
    assert format_change_interval(1.2, None) == "n/a"
    assert format_change_interval(0.9, float("nan")) == "n/a"


def test_within_is_the_half_width_in_logarithms() -> None:
    """A ratio between 1 and 1.21 is known to within 10 % in both directions."""
    assert format_within(1.0, 1.21) == "±10 %"
    assert format_within(1 / 1.21, 1.0) == "±10 %"
    assert format_within(0.0, 1.0) == "n/a"


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (2.5, "2.5"), (10.0, "10"), (12500, "12\N{NARROW NO-BREAK SPACE}500")]
)
def test_ticks_have_no_superfluous_digits(value: float, text: str) -> None:
    """An axis shows 10, not 10.0."""
    assert format_tick(value) == text


def test_times_are_utc() -> None:
    """A time in another zone is printed as UTC, with the zone."""
    at = datetime(2026, 11, 23, 4, 15, tzinfo=timezone(timedelta(hours=1)))
    assert format_time(at) == format_time(at.astimezone(UTC)) == "2026-11-23 03:15 UTC"


@pytest.mark.parametrize(("count", "text"), [(0, "0 repeats"), (1, "1 repeat"), (3, "3 repeats")])
def test_noun_follows_its_count(count: int, text: str) -> None:
    """One repeat, three repeats."""
    assert format_counted(count, "repeat") == text
