"""Summaries without a run, for tests of reports; a test changes the fields that matter to it."""

from typing import Any

from bench.results.summary_records import ConfigurationSummary, Contrast, RepeatSummary, SummaryRecord


def repeat(**changes: Any) -> RepeatSummary:
    """Return a valid repeat of a minute."""
    values: dict[str, Any] = {
        "trial": "01-istio-1", "block": 1, "valid": True, "issues": (), "requests": 10_000,
        "errors": 0, "window_s": 60.0, "rps": 170.0, "mean_ms": 6.0, "p50_ms": 5.0, "p75_ms": 7.0, "p90_ms": 9.0,
        "p95_ms": 10.0, "p99_ms": 14.0, "p999_ms": 20.0, "max_ms": 30.0, "thesis_p95_ms": 11.0,
        "corrected_p95_ms": 10.0, "stall_s": 0, "lateness_p95_ms": 0.4, "generator_cpu": 0.2, "resources": (),
    }  # fmt: skip
    return RepeatSummary(**values | changes)


def configuration(**changes: Any) -> ConfigurationSummary:
    """Return a configuration of three valid repeats."""
    values: dict[str, Any] = {
        "mesh": "none", "users": 20, "valid": True, "repeats": (), "n": 3, "p95_ms": 10.0, "p95_low_ms": 9.0,
        "p95_high_ms": 11.0, "p95_cv": 0.05, "no_interval": "", "rps": 180.0, "rps_low": 178.0, "rps_high": 182.0,
        "thesis_p95_ms": 11.0, "requests": 60_000, "errors": 0, "sidecar_cpu_ms_per_request": None,
        "sidecar_rss_bytes": None, "service_cpu_ms_per_request": 3.0,
    }  # fmt: skip
    return ConfigurationSummary(**values | changes)


def contrast(**changes: Any) -> Contrast:
    """Return istio against baseline: 42 % slower."""
    values: dict[str, Any] = {
        "configuration": "istio", "reference": "baseline", "metric": "p95_ms", "n": (3, 3), "ratio": 1.42,
        "ratio_low": 1.20, "ratio_high": 1.68, "delta_ms": 4.2, "delta_low_ms": 2.0, "delta_high_ms": 6.8,
        "delta_rps": None, "delta_low_rps": None, "delta_high_rps": None, "method": "welch", "verdict": "slower",
        "confirmatory": True, "issues": (), "mde": 0.19, "block_ratios": (1.4, 1.41, 1.45),
    }  # fmt: skip
    return Contrast(**values | changes)


def summary(*contrasts: Contrast, **changes: Any) -> SummaryRecord:
    """Return a summary of baseline and istio with these contrasts."""
    values: dict[str, Any] = {
        "run_id": "run", "scenario": "istio-policies", "target": "local", "valid": True, "quick": False,
        "status": "complete", "reference": "baseline", "margin": 0.1, "confidence": 0.95,
        "configurations": {
            "baseline": configuration(),
            "istio": configuration(mesh="istio", rps=170.0, sidecar_cpu_ms_per_request=2.4, sidecar_rss_bytes=2**27),
        },
        "contrasts": contrasts, "issues": (),
    }  # fmt: skip
    return SummaryRecord(**values | changes)
