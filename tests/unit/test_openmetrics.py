"""The metrics of a history, as text."""

import math
import re
from datetime import timedelta
from pathlib import Path

import pytest

from bench.analysis.history import History, append_lines
from bench.errors import InputError
from bench.report.openmetrics import METRICS, format_openmetrics, push
from bench.units import parse_duration
from tests.nights import LAST, call, make_history

LINE = re.compile(r'(meshbench_\w+)\{((?:[a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)+)\} (\S+)(?: (\S+))?')


def read(text: str) -> dict[tuple[str, str], float]:
    """Metric and labels -> value, of the samples without a time."""
    found = [LINE.fullmatch(line) for line in text.splitlines() if not line.startswith("#")]
    return {(match[1], match[2]): float(match[3]) for match in found if match is not None and match[4] is None}


def labels(configuration: str = "istio", **more: str) -> str:
    known = {"scenario": "nightly", "configuration": configuration, "reference": "baseline", **more}
    return ",".join(f'{name}="{value}"' for name, value in known.items())


def test_newest_night_is_exported() -> None:
    """Ratio, interval, usual ratio, limits, outcome and times are those of the newest night of each contrast."""
    history = make_history(8)
    found, newest = read(format_openmetrics(history)), history.lines[-2]
    assert newest.configuration == "istio"
    assert newest.ln_ratio is not None
    ratio = found["meshbench_p95_ratio", labels()]
    assert ratio == math.exp(newest.ln_ratio)
    assert found["meshbench_p95_ratio_low", labels()] < ratio < found["meshbench_p95_ratio_high", labels()]
    limits = [found["meshbench_p95_ratio_limit", labels(confidence=share)] for share in ("0.95", "0.99")]
    assert found["meshbench_p95_ratio_usual", labels()] < limits[0] < limits[1]
    assert found["meshbench_baseline_nights", labels()] == 7
    assert found["meshbench_last_success_timestamp_seconds", labels()] == LAST.timestamp()
    outcomes = {
        key: value for key, value in found.items() if key[0] == "meshbench_outcome" and "policies" not in key[1]
    }
    assert outcomes["meshbench_outcome", labels(outcome="pass")] == sum(outcomes.values()) == 1
    assert len(outcomes) == 6
    mean = math.exp(sum(newest.ln_p95_ms) / 3) / 1e3
    assert found["meshbench_p95_seconds", 'scenario="nightly",configuration="istio"'] == pytest.approx(mean)
    assert {metric for metric, _ in found} == set(METRICS)


def test_every_metric_has_help_and_one_sample_per_labels() -> None:
    """Each metric is described once before its samples; what two contrasts share is there once; the end is marked."""
    text = format_openmetrics(make_history(8))
    samples = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(samples) == len(set(samples))
    for metric in METRICS:
        assert text.index(f"# HELP {metric} ") < text.index(f"# TYPE {metric} gauge\n{metric}{{")
    assert text.endswith("\n# EOF\n")


def test_invalid_night_has_an_outcome_and_no_ratio() -> None:
    """What was not measured is missing; the last success stays that of the night before."""
    found = read(format_openmetrics(make_history(8, changes={7: {"valid": False}})))
    assert not any(metric.startswith(("meshbench_p95", "meshbench_baseline")) for metric, _ in found)
    assert found["meshbench_outcome", labels(outcome="invalid")] == 1
    day = timedelta(days=1).total_seconds()
    assert found["meshbench_last_night_timestamp_seconds", labels()] == LAST.timestamp()
    assert found["meshbench_last_success_timestamp_seconds", labels()] == LAST.timestamp() - day


def test_history_without_a_valid_night_has_no_last_success() -> None:
    """A time that does not exist is no sample, so that an alert on its absence fires."""
    text = format_openmetrics(make_history(2, changes={0: {"valid": False}}))
    assert "last_success" not in text
    assert format_openmetrics(History(())) == "# EOF\n"


def test_every_night_has_its_time() -> None:
    """Samples of one set of labels are neighbours, oldest first, with the time of their night."""
    text = format_openmetrics(make_history(5), every_night=True)
    found = [LINE.fullmatch(line) for line in text.splitlines() if line.startswith("meshbench_p95_ratio{")]
    times = [float(match[4]) for match in found if match and match[2] == labels()]
    assert times == [(LAST - timedelta(days=day)).timestamp() for day in (4, 3, 2, 1, 0)]
    assert len(found) == 10
    assert len({match[2] for match in found[:5] if match}) == 1


def test_labels_are_escaped() -> None:
    """Quotes, backslashes and line ends of a name cannot end a label."""
    name = 'a"} 1\n\\x'
    text = format_openmetrics(make_history(1, scenario=name))
    assert r'scenario="a\"} 1\n\\x"' in text
    assert all(line.startswith("#") or LINE.fullmatch(line) for line in text.splitlines())


@pytest.mark.parametrize("url", ["localhost:9091", "ftp://x/", "http://u:secret@[x", "file:///etc/passwd"])
def test_refuses_what_is_no_url(url: str) -> None:
    """An address without http is one message that shows the form, and no password."""
    with pytest.raises(InputError, match=r"--pushgateway: .*http://HOST:9091") as caught:
        push(make_history(1), url)
    assert "secret" not in str(caught.value)


def test_command_prints_or_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--openmetrics` alone prints the metrics, with a path it writes the same; options that do not fit are refused."""
    path = tmp_path / "history.jsonl"
    append_lines(path, make_history(3).lines)
    assert call("export", path, "--openmetrics") == 0
    printed = capsys.readouterr().out
    assert call("export", path, "--openmetrics", tmp_path / "meshbench.prom") == 0
    assert (tmp_path / "meshbench.prom").read_text() == printed
    (empty := tmp_path / "empty.jsonl").write_text("")
    assert call("export", empty, "--openmetrics") == 2
    assert "has no night; hint: " in capsys.readouterr().err
    assert call("export", path) == 2
    assert "nothing to write to; hint: " in capsys.readouterr().err
    assert call("export", path, "--every-night", "--pushgateway", "http://127.0.0.1:9") == 2
    assert "a pushgateway takes no times" in capsys.readouterr().err
    monkeypatch.setenv("MESHBENCH_PUSHGATEWAY", "127.0.0.1:9")
    assert call("export", path) == 2
    assert "--pushgateway: is no URL" in capsys.readouterr().err


def test_dashboard_is_made_by_its_script_and_names_known_metrics() -> None:
    """The dashboard is what Grafana's library makes; each metric that it or an alert asks for is exported."""
    pytest.importorskip("grafana_foundation_sdk", reason="grafana-foundation-sdk is not installed")
    from tests import grafana as made

    assert made.DASHBOARD.read_text("utf-8") == made.make_dashboard(), "run `python -m tests.grafana`"
    rules = (made.DASHBOARD.parents[1] / "prometheus" / "rules.yaml").read_text("utf-8")
    named = set(re.findall(r"meshbench_\w+", made.make_dashboard() + rules))
    assert named <= set(METRICS)
    assert len(named) >= 5


def test_alert_waits_longer_than_a_day() -> None:
    """A job that runs every night cannot make the alert of a missing night fire."""
    made = Path(__file__).parents[2] / "manifests" / "prometheus" / "rules.yaml"
    (hours,) = re.findall(r"> (\d+) \* 3600", made.read_text("utf-8"))
    assert parse_duration("24h") < int(hours) * 3600 < parse_duration("48h")
