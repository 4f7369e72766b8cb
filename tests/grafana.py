"""Make the Grafana dashboard that ships, with Grafana's own library: `python -m tests.grafana` writes it anew."""

from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as model

from tests.bookinfo import ROOT

DASHBOARD: Final = ROOT / "manifests" / "grafana" / "dashboard.json"
_CHOSEN: Final = 'scenario=~"$scenario"'
_PAIR: Final = "scenario, configuration, reference"
_LEGEND: Final = "{{configuration}} against {{reference}}"
_SOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="${source}")
_ORANGE, _RED = "orange", "red"
_WIDE, _HALF, _HIGH = 24, 12, 9

# Outcomes that need an answer, from the mildest to the worst: their number is the colour of a night.
_OUTCOMES: Final = (("warning", _ORANGE), ("invalid", "purple"), ("regression", _RED))


def make_dashboard() -> str:
    """Return the dashboard as JSON."""
    made = (
        dashboard.Dashboard("Mesh latency, night by night")
        .uid("meshbench-nightly")
        .description("Metrics of `meshbench export`. Choose the Prometheus and the scenarios at the top.")
        .tags(["meshbench"])
        .time("now-60d", "now")
        .timezone("browser")
        .readonly()
        .with_variable(dashboard.DatasourceVariable("source").label("Prometheus").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("scenario")
            .label("Scenario")
            .datasource(_SOURCE)
            .query("label_values(meshbench_last_night_timestamp_seconds, scenario)")
            .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
        )
        .with_panel(_make_age())
        .with_panel(_make_newest())
        .with_panel(_make_ratio())
        .with_panel(_make_outcomes())
        .with_panel(_make_p95())
    )
    text: str = JSONEncoder(sort_keys=True, indent=2).encode(made.build())
    return f"{text}\n"


def _query(expression: str, legend: str, ref: str = "A", *, instant: bool = False) -> prometheus.Dataquery:
    query = prometheus.Dataquery().datasource(_SOURCE).ref_id(ref).expr(expression).legend_format(legend)
    return query.instant() if instant else query.range()


def _steps(*steps: tuple[float | None, str]) -> dashboard.ThresholdsConfig:
    found = [model.Threshold(value=value, color=colour) for value, colour in steps]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(found)


def _make_age() -> stat.Panel:
    """Return how long ago the last valid night began: red from the second missing night on."""
    age = f"time() - max by (scenario) (meshbench_last_success_timestamp_seconds{{{_CHOSEN}}})"
    return (
        stat.Panel()
        .title("Last valid night")
        .description("How long ago it began. A night that never began adds no sample: this is what shows it.")
        .datasource(_SOURCE)
        .span(_HALF)
        .height(5)
        .unit("s")
        .decimals(0)
        .graph_mode(shapes.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(_steps((None, "green"), (36 * 3600, _ORANGE), (60 * 3600, _RED)))
        .with_target(_query(age, "{{scenario}}", instant=True))
    )


def _make_newest() -> stat.Panel:
    """Return the outcome of the newest night of each contrast."""
    return (
        stat.Panel()
        .title("Outcome of the newest night")
        .datasource(_SOURCE)
        .span(_HALF)
        .height(5)
        .text_mode(shapes.BigValueTextMode.NAME)
        .graph_mode(shapes.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_mode(shapes.BigValueColorMode.BACKGROUND)
        .thresholds(_steps((None, "green"), *((float(n), colour) for n, (_, colour) in enumerate(_OUTCOMES, start=1))))
        .with_target(_query(_format_outcome(), _LEGEND, instant=True))
    )


def _format_outcome() -> str:
    """Return the query of 0 for a night that needs nothing, and the number of each other outcome."""
    return " + ".join(
        f'{number} * max by ({_PAIR}) (meshbench_outcome{{{_CHOSEN}, outcome="{outcome}"}})'
        for number, (outcome, _) in enumerate(_OUTCOMES, start=1)
    )


def _make_ratio() -> timeseries.Panel:
    """Return the ratio of each night between the usual one and the limit."""
    panel = (
        timeseries.Panel()
        .title("P95 ratio against the reference of the same night")
        .description("Dashed: the usual ratio. Red: how high one more night may come out by chance.")
        .datasource(_SOURCE)
        .span(_WIDE)
        .height(_HIGH + 2)
        .unit("none")
        .decimals(2)
        .line_width(1)
        .show_points(shapes.VisibilityMode.AUTO)
        .line_interpolation(shapes.LineInterpolation.STEP_AFTER)
        .with_target(_query(f"meshbench_p95_ratio{{{_CHOSEN}}}", _LEGEND, "A"))
        .with_target(_query(f"meshbench_p95_ratio_usual{{{_CHOSEN}}}", f"usual: {_LEGEND}", "B"))
        .with_target(_query(f'meshbench_p95_ratio_limit{{{_CHOSEN}, confidence="0.95"}}', f"limit: {_LEGEND}", "C"))
        .override_by_query("B", [_value("custom.lineStyle", {"fill": "dash", "dash": [6, 6]})])
    )
    return panel.override_by_query("C", [_value("color", {"mode": "fixed", "fixedColor": _RED})])


def _value(name: str, value: object) -> model.DynamicConfigValue:
    return model.DynamicConfigValue(id_val=name, value=value)


def _make_outcomes() -> statetimeline.Panel:
    """Return the outcomes night by night."""
    options = {"0": model.ValueMappingResult(text="fine", color="green", index=0)} | {
        str(number): model.ValueMappingResult(text=outcome, color=colour, index=number)
        for number, (outcome, colour) in enumerate(_OUTCOMES, start=1)
    }
    return (
        statetimeline.Panel()
        .title("Outcomes")
        .datasource(_SOURCE)
        .span(_WIDE)
        .height(_HIGH - 2)
        .merge_values(True)
        .mappings([model.ValueMap(options=options)])
        .with_target(_query(_format_outcome(), _LEGEND))
    )


def _make_p95() -> timeseries.Panel:
    """Return P95 of each configuration, which shows whether a machine changed."""
    return (
        timeseries.Panel()
        .title("P95 of each configuration")
        .description("Where all move together, the machine changed, and their ratio did not.")
        .datasource(_SOURCE)
        .span(_WIDE)
        .height(_HIGH)
        .unit("s")
        .min(0)
        .line_width(1)
        .line_interpolation(shapes.LineInterpolation.STEP_AFTER)
        .with_target(_query(f"meshbench_p95_seconds{{{_CHOSEN}}}", "{{scenario}}: {{configuration}}"))
    )


def write_dashboard(path: Path = DASHBOARD) -> None:
    """Write the dashboard that ships."""
    path.write_text(make_dashboard(), "utf-8")


if __name__ == "__main__":
    write_dashboard()
