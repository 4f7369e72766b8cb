"""Parse quantities with units, and format numbers: the one place for both.

Inside the program a duration is a float in seconds (`duration_s`) or an int in nanoseconds (`latency_ns`),
a rate a float per second, a share a float between 0 and 1.
"""

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

NANOSECONDS = 1_000_000_000
NS_PER_MS = 1_000_000

_DURATION_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
_GO_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_GO_DURATION_PART = r"([0-9]+(?:\.[0-9]+)?)(ns|us|ms|s|m|h)"
_RATE_UNITS = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
_QUANTITY_UNITS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0}
_QUANTITY_UNITS |= {unit: 1000.0 ** (power + 1) for power, unit in enumerate("kMGTPE")}
_QUANTITY_UNITS |= {f"{unit}i": 1024.0 ** (power + 1) for power, unit in enumerate("KMGTPE")}
QUANTITY_PATTERN = r"([0-9]+(?:\.[0-9]+)?(?:[eE][0-9]+)?)([numkMGTPE]|[KMGTPE]i)?"
# Also the patterns of the scenario schema: nothing in them that JavaScript reads otherwise.
DURATION_PATTERN = r"([0-9]+(?:\.[0-9]+)?)\s*(us|ms|s|min|m|h)"
RATE_PATTERN = r"([0-9]+(?:\.[0-9]+)?)\s*/\s*(s|min|m|h)"
PERCENT_PATTERN = r"([0-9]+(?:\.[0-9]+)?)\s*%"

_MANIFOLD = 10.995  # from here on a factor is easier to read than its percentage, which would be +1000 %


def parse_duration(text: str) -> float:
    """Return the seconds in `120s`, `100ms` or `1.5min`. Raises ValueError with the expected form."""
    match = re.fullmatch(DURATION_PATTERN, text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write a number with a unit, such as 120s, 100ms or 2min")
    return float(match[1]) * _DURATION_UNITS[match[2]]


def parse_go_duration(text: str) -> float:
    """Return the seconds in a duration of Kubernetes and Go: `3s`, `1m30s`, `0s`. Raises ValueError with the form."""
    parts = re.findall(_GO_DURATION_PART, text)
    if not parts or "".join(map("".join, parts)) != text:
        raise ValueError(f"{text!r} is not a duration; write numbers with units, such as 3s, 500ms or 1m30s")
    return sum(float(number) * _GO_UNITS[unit] for number, unit in parts)


def parse_rate(text: str) -> float:
    """Return the events per second in `50/s` or `600/min`. Raises ValueError with the expected form."""
    match = re.fullmatch(RATE_PATTERN, text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a rate; write requests per time, such as 50/s or 600/min")
    return float(match[1]) / _RATE_UNITS[match[2]]


def parse_percent(text: str) -> float:
    """Return the share in `10%`: 0.1. Raises ValueError with the expected form."""
    match = re.fullmatch(PERCENT_PATTERN, text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a share; write a percentage, such as 10%")
    return float(match[1]) / 100


def parse_quantity(text: str) -> float:
    """Return the number in a quantity of Kubernetes (`500m` is 0.5, `1536Ki` 1572864). Raises ValueError."""
    match = re.fullmatch(QUANTITY_PATTERN, text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a quantity; write a number with or without a unit, such as 500m or 64Mi")
    return float(match[1]) * _QUANTITY_UNITS[match[2] or ""]


def format_duration(seconds: float) -> str:
    """Format seconds as `100ms`, `15s`, `1min 30s` or `2h`; `parse_duration` reads those with one unit."""
    if not math.isfinite(seconds):
        return "n/a"
    if 0 < seconds < 1e-3:
        return f"{seconds * 1e6:.3g}us"
    if 0 < seconds < 1:
        return f"{seconds * 1e3:g}ms"
    if seconds < 59.95:
        return f"{seconds:.3g}s"
    if seconds < 3599.5:
        return _two_units(round(seconds), "min", "s")
    return _two_units(round(seconds / 60), "h", "min")


def format_span(seconds: float) -> str:
    """Format seconds for a sentence, with a space before each unit: `100 ms`, `15 s`, `1 min 30 s`."""
    return re.sub(r"(?<=\d)(?=[a-z])", " ", format_duration(seconds))


def format_ms(value: float | None) -> str:
    """Format milliseconds with three significant digits below 100, whole above; `n/a` for None."""
    return _significant(value)


def format_rough_ms(value: float | None) -> str:
    """Format milliseconds for sentences, with two digits below 100: `8.6`, `0.86`, `24`, `110`; `n/a` for None."""
    if value is None or not math.isfinite(value):
        return "n/a"
    rounded = round(value, _count_decimals(value))
    return f"{rounded:.{_count_decimals(rounded)}f}"


def format_rps(value: float | None) -> str:
    """Format requests per second with the digits of `format_ms`."""
    return _significant(value)


def format_delta(value: float | None) -> str:
    """Format a signed difference with the digits of `format_ms`."""
    if value is None or not math.isfinite(value):
        return "n/a"
    return _signed(value, _significant(abs(value)))


def format_ratio(value: float | None) -> str:
    """Format a ratio with two decimals: `1.42`, so that 1 % is the last digit."""
    return "n/a" if value is None or not math.isfinite(value) else f"{value:.2f}"


def format_change(ratio: float | None) -> str:
    """Format a ratio as a signed change: 1.42 is `+42 %`, and 131.5 is `×131`."""
    if ratio is None or not math.isfinite(ratio):
        return "n/a"
    if ratio >= _MANIFOLD:
        return f"×{_factor(ratio)}"
    percent = (ratio - 1) * 100
    digits = 1 if abs(percent) < 9.95 else 0
    return f"{_signed(percent, f'{abs(percent):.{digits}f}')} %"


def format_rough_change(ratio: float | None) -> str:
    """Format a ratio as a signed change in whole per cent, for sentences: `+42 %`; from 1 % downwards `+0.4 %`."""
    if ratio is None or not math.isfinite(ratio) or ratio >= _MANIFOLD:
        return format_change(ratio)
    percent = (ratio - 1) * 100
    digits = 1 if 0.05 <= abs(percent) < 0.95 else 0
    return f"{_signed(percent, f'{abs(percent):.{digits}f}')} %"


def format_percent(share: float | None) -> str:
    """Format a share as a percentage: 0.123 is `12 %`, 0.0123 is `1.2 %`."""
    if share is None or not math.isfinite(share):
        return "n/a"
    percent = share * 100
    return f"{percent:.1f} %" if 0 < abs(percent) < 9.95 else f"{percent:.0f} %"


def format_effect(share: float | None) -> str:
    """Format the size of a difference, as a share of the reference: 0.42 is `42 %`, 130.5 is `a factor of 131`."""
    if share is None or not math.isfinite(share) or 1 + share < _MANIFOLD:
        return format_percent(share)
    return f"a factor of {_factor(1 + share)}"


def format_interval(
    low: float | None, high: float | None, formatter: Callable[[float | None], str] | None = None
) -> str:
    """Format `[low, high]` with the digits of `formatter` (`format_ms`), or `n/a` without an interval."""
    format_bound = formatter or format_ms
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return "n/a"
    return f"[{format_bound(low)}, {format_bound(high)}]"


def format_change_interval(low: float | None, high: float | None) -> str:
    """Format the interval of a ratio as signed changes: `+20 % to +68 %`, or `n/a`."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return "n/a"
    return f"{format_change(low)} to {format_change(high)}"


def format_between(low: float | None, high: float | None) -> str:
    """Format the interval of a ratio for a sentence: `between +62 and +81 %`, or `n/a`."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return "n/a"
    ends = format_rough_change(low), format_rough_change(high)
    shared = all(end.endswith(" %") for end in ends)
    return f"between {ends[0].removesuffix(' %') if shared else ends[0]} and {ends[1]}"


def format_within(low: float | None, high: float | None) -> str:
    """Format the half-width of a ratio's interval in logarithms: `±18 %`."""
    if low is None or high is None or not (0 < low <= high < math.inf):
        return "n/a"
    factor = math.sqrt(high / low)
    return f"{'±' if factor < _MANIFOLD else ''}{format_effect(factor - 1)}"


def format_time(at: datetime) -> str:
    """Format a point in time: `2026-11-23 03:15 UTC`."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def format_tick(value: float) -> str:
    """Format a number at an axis with as few digits as possible and thin separators: `0.5`, `10`, `12 500`."""
    return format_count(round(value)) if abs(value) >= 1000 else f"{value:g}"


def format_bytes(count: float | None) -> str:
    """Format bytes in binary units: `18 MiB`."""
    if count is None or not math.isfinite(count):
        return "n/a"
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1023.5:
            return f"{count:.3g} {unit}" if abs(count) < 100 else f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.3g} GiB"


def format_count(count: int) -> str:
    """Format a whole number with thin separators: `12 345`."""
    return f"{count:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def format_counted(count: int, noun: str) -> str:
    """Format a count with its noun: `1 repeat`, `3 repeats`."""
    return f"{format_count(count)} {noun}{'' if count == 1 else 's'}"


def format_first(names: Sequence[str], most: int, *, separator: str = ", ") -> str:
    """Join names, of a long list the first ones: `a, b and 3 more`."""
    more = f" and {format_count(len(names) - most)} more" if len(names) > most else ""
    return f"{separator.join(names[:most])}{more}"


def _significant(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "n/a"
    size = abs(value)
    digits = 0 if size >= 99.95 else 1 if size >= 9.995 else 2
    return f"{value:.{digits}f}"


def _count_decimals(value: float) -> int:
    """Return the decimals that leave two significant digits, at least the whole number."""
    return max(1 - math.floor(math.log10(abs(value))), 0) if value else 0


def _factor(ratio: float) -> str:
    return format_count(round(ratio)) if ratio >= 99.95 else _significant(ratio)


def _signed(value: float, size: str) -> str:
    """Put the sign of `value` before `size`; a size that is printed as zero is not negative."""
    return ("\N{MINUS SIGN}" if value < 0 and float(size) else "+") + size


def _two_units(count: int, large: str, small: str) -> str:
    whole, rest = divmod(count, 60)
    return f"{whole}{large} {rest}{small}" if rest else f"{whole}{large}"
