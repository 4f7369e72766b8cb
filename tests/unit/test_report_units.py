"""How a report prints numbers."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from bench.units import (
    format_between,
    format_change_interval,
    format_counted,
    format_rough_change,
    format_rough_ms,
    format_tick,
    format_time,
    format_within,
)


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


@pytest.mark.parametrize(
    ("ms", "text"),
    [(8.61, "8.6"), (0.0863, "0.086"), (9.96, "10"), (23.9, "24"), (110.2, "110"), (0.0, "0"), (None, "n/a")],
)
def test_sentences_have_milliseconds_of_two_digits(ms: float | None, text: str) -> None:
    """A third digit would promise more than the interval beside it."""
    assert format_rough_ms(ms) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(1.714, "+71 %"), (0.966, "−3 %"), (1.004, "+0.4 %"), (0.9999, "+0 %"), (131.5, "×132"), (None, "n/a")],
)
def test_sentences_have_whole_per_cents(ratio: float | None, text: str) -> None:
    """Only a change that would be rounded to zero has a decimal."""
    assert format_rough_change(ratio) == text


def test_interval_in_a_sentence_has_one_sign_of_per_cent() -> None:
    """An end that is a factor keeps its own form."""
    assert format_between(1.62, 1.81) == "between +62 and +81 %"
    assert format_between(9.9, 131.5) == "between +890 % and ×132"
    assert format_between(1.2, None) == format_between(0.9, float("inf")) == "n/a"
