"""Define every column of every DataFrame of a run: its type, its unit, its meaning.

The frames and the page docs/dataframes.md are made from these; `python -m bench.frames.columns` writes the page.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal, NamedTuple

Dtype = Literal["bool", "category", "str", "int16", "int32", "int64", "float64", "object"]


class Column(NamedTuple):
    """One column; `unit` is empty where it has none. A missing number is NaN."""

    name: str
    dtype: Dtype
    unit: str
    meaning: str


class Frame(NamedTuple):
    """One DataFrame: the method of `bench.frames.run.Run` that returns it, what a row is, its columns."""

    name: str
    row: str
    columns: tuple[Column, ...]


_CONFIGURATION: Final = Column(
    "configuration", "category", "", "its configuration; categories are in the scenario's order"
)
TRIAL: Final = (
    _CONFIGURATION,
    Column("trial", "category", "", "its trial: number, configuration and block, such as `01-baseline-1`"),
    Column("block", "int64", "", "the block of the trial"),
    Column("valid", "bool", "", "whether the trial counts; false, too, where its block has a rerun"),
    Column("issues", "category", "", "codes of its issues, such as `stall, unsteady`: reasons first, then warnings"),
)
_ISSUES: Final = Column("issues", "str", "", "codes of what limits the number, such as `no-interval`")
_PAIR: Final = (
    _CONFIGURATION,
    Column("reference", "category", "", "the configuration that it is compared with"),
)
_COUNTS: Final = (
    Column("n", "int64", "repeats", "valid repeats of the configuration; paired: blocks in which both are valid"),
    Column("n_reference", "int64", "repeats", "valid repeats of the reference; paired: the same blocks"),
)

SAMPLES: Final = Frame(
    "samples",
    "request, warm-up included",
    (
        *TRIAL,
        Column("name", "category", "", "name of the request in the Locust file"),
        Column("status", "int16", "", "HTTP status; 0 without a response"),
        Column("ok", "bool", "", "whether status and body were right"),
        Column("bytes", "int64", "bytes", "size of the body"),
        Column("intended_s", "float64", "s", "when the request was due, since the start of the load"),
        Column("started_s", "float64", "s", "when it was sent, since the start of the load"),
        Column("latency_ms", "float64", "ms", "from its start to the last byte of the response"),
        Column(
            "response_ms",
            "float64",
            "ms",
            "what percentiles count: in an open loop since `intended_s`, else `latency_ms`",
        ),
        Column("in_window", "bool", "", "whether it started inside a window of its trial; others are not counted"),
    ),
)

REPEATS: Final = Frame(
    "repeats",
    "trial, valid or not",
    (
        _CONFIGURATION,
        Column("users", "int64", "users", "users of the load"),
        Column("mesh", "str", "", "mesh of the configuration, or `none`"),
        *TRIAL[1:4],
        Column("reasons", "str", "", "why it is invalid, in full, with advice"),
        Column("warnings", "str", "", "issues that leave it valid, in full, with advice"),
        Column("requests", "int64", "requests", "requests that started inside the window"),
        Column("errors", "int64", "requests", "those of them without a right response"),
        Column("window_s", "float64", "s", "length of the window"),
        Column("rps", "float64", "1/s", "successful requests per second of the window"),
        Column("mean_ms", "float64", "ms", "arithmetic mean of the successful requests"),
        *(
            Column(
                f"{name}_ms",
                "float64",
                "ms",
                f"{share} of the successful requests are answered within it (nearest rank)",
            )
            for name, share in (
                ("p50", "50 %"),
                ("p75", "75 %"),
                ("p90", "90 %"),
                ("p95", "95 %"),
                ("p99", "99 %"),
                ("p999", "99.9 %"),
            )
        ),
        Column("max_ms", "float64", "ms", "the slowest successful request"),
        Column("thesis_p95_ms", "float64", "ms", "the 2022 study's statistic, for comparison with it only; sequential"),
        Column("corrected_p95_ms", "float64", "ms", "P95 since intended starts, corrected for coordinated omission"),
        Column("stall_s", "int64", "s", "whole seconds of the window without a response"),
        Column("lateness_p95_ms", "float64", "ms", "P95 of the time by which a request started later than intended"),
        Column("own_wait_ms", "float64", "ms", "mean wait of a user, where the locustfile's own waits hold"),
        Column("generator_cpu", "float64", "cores", "CPU that the load generator used"),
        Column("used_cpu", "float64", "", "share of all CPUs that the run used, with all configurations of the block"),
        Column(
            "other_cpu", "float64", "", "share of all CPUs that all other processes used; on a cluster: of the nodes"
        ),
        Column("steal", "float64", "", "share of all CPUs that the hypervisor gave to others"),
        Column("pressure", "float64", "", "share of the time in which some process waited for a CPU"),
        Column("throttled", "float64", "", "share of the time in which a limit stopped processes, at most 1"),
        TRIAL[4],
    ),
)

CONFIGURATIONS: Final = Frame(
    "configurations",
    "configuration, over its valid repeats, with 95 % intervals",
    (
        _CONFIGURATION,
        Column("mesh", "str", "", "its mesh, or `none`"),
        Column("users", "int64", "users", "users of the load"),
        Column("valid", "bool", "", "whether all planned repeats are valid"),
        Column("n", "int64", "repeats", "valid repeats"),
        Column("measured", "int64", "repeats", "measured repeats, valid or not"),
        Column("warnings", "int64", "warnings", "warnings of all its repeats"),
        Column("p95_ms", "float64", "ms", "geometric mean of the repeats' P95"),
        Column("p95_low_ms", "float64", "ms", "lower end of its interval"),
        Column("p95_high_ms", "float64", "ms", "upper end of its interval"),
        Column("p95_cv", "float64", "", "standard deviation of ln P95 between repeats"),
        Column("no_interval", "str", "", "why there is no interval, if there is none"),
        Column("rps", "float64", "1/s", "arithmetic mean of the repeats' successful requests per second"),
        Column("rps_low", "float64", "1/s", "lower end of its interval"),
        Column("rps_high", "float64", "1/s", "upper end of its interval"),
        Column("requests", "int64", "requests", "requests of the valid windows"),
        Column("errors", "int64", "requests", "those of them without a right response"),
        Column("thesis_p95_ms", "float64", "ms", "the 2022 study's statistic, for comparison with it only; sequential"),
        Column("sidecar_cpu_ms_per_request", "float64", "ms", "CPU time of all sidecars for one request"),
        Column("sidecar_cpu_low_ms_per_request", "float64", "ms", "lower end of its interval"),
        Column("sidecar_cpu_high_ms_per_request", "float64", "ms", "upper end of its interval"),
        Column("sidecar_rss_bytes", "float64", "bytes", "memory of all sidecars: sum of their largest resident sizes"),
        Column("service_cpu_ms_per_request", "float64", "ms", "CPU time of all services for one request"),
    ),
)

CONTRASTS: Final = Frame(
    "contrasts",
    "comparison of two configurations on one metric, with 95 % intervals",
    (
        *_PAIR,
        Column("metric", "str", "", "`p50_ms`, `p95_ms`, `p99_ms` or `rps`"),
        *_COUNTS,
        Column("ratio", "float64", "", "configuration divided by reference: 1.10 is +10 %"),
        Column("ratio_low", "float64", "", "lower end of its interval"),
        Column("ratio_high", "float64", "", "upper end of its interval"),
        Column("delta_ms", "float64", "ms", "the difference, of a latency"),
        Column("delta_low_ms", "float64", "ms", "lower end of its interval"),
        Column("delta_high_ms", "float64", "ms", "upper end of its interval"),
        Column("delta_rps", "float64", "1/s", "the difference, of `rps`"),
        Column("delta_low_rps", "float64", "1/s", "lower end of its interval"),
        Column("delta_high_rps", "float64", "1/s", "upper end of its interval"),
        Column("method", "str", "", "how ratio and interval were computed"),
        Column("verdict", "str", "", "`slower`, `faster`, `different`, `equivalent`, `inconclusive` or `invalid`"),
        Column("confirmatory", "bool", "", "P95 against the scenario's reference"),
        Column("reason", "str", "", "why there is no interval or no verdict; what limits them"),
        Column("mde", "float64", "", "minimum detectable effect (80 % power), as ratio minus 1"),
        Column("block_ratios", "object", "", "the ratio inside each block, a tuple; None where a block lacks a side"),
        Column("within_low", "float64", "", "lower end of the ratio's interval without differences between blocks"),
        Column("within_high", "float64", "", "its upper end"),
        Column("median_ratio", "float64", "", "median of the blocks' ratios, in a paired run from 8 blocks on"),
        Column("median_low", "float64", "", "lower end of its exact interval, by order statistics"),
        Column("median_high", "float64", "", "its upper end"),
        Column("lag_1", "float64", "", "correlation of neighbouring blocks in a paired run, from 5 blocks on"),
        Column("effective_n", "float64", "blocks", "independent blocks that know as much, in a paired run"),
        Column(
            "sequential_minutes",
            "float64",
            "min",
            "machine minutes in which a sequential run would know the ratio as well; of a paired run",
        ),
        Column("named", "bool", "", "whether the scenario names this pair in its `contrasts`"),
        Column("alike", "bool", "", "one configuration under two names: any difference is noise"),
        Column("standing", "str", "", "`confirmatory`, `planned` (P95 of a named pair) or `exploratory`"),
        _ISSUES,
    ),
)

RESOURCES: Final = Frame(
    "resources",
    "process and reading; on a cluster, container or node. Rows of role `noise` are no processes but counters since "
    "their first reading: `capacity` (all CPUs), `own` (the run's CPU time), `others` (that of all other processes), "
    "`steal`, `pressure`, `throttled`",
    (
        *TRIAL,
        Column("process", "category", "", "name of the process, container, node or counter"),
        Column("role", "category", "", "`service`, `sidecar`, `generator`, `control-plane`, `node` or `noise`"),
        Column("at_s", "float64", "s", "time of the reading, since the start of the load"),
        Column("cpu_s", "float64", "s", "CPU time of the process so far; the counter's value"),
        Column("cpu_cores", "float64", "cores", "CPU since its reading before; NaN for the first"),
        Column("rss_bytes", "int64", "bytes", "resident memory; on a cluster the working set"),
        Column("in_window", "bool", "", "whether the reading was inside a window of its trial"),
    ),
)

PROCESSES: Final = Frame(
    "processes",
    "process and trial: what it used inside the window. Noise is no process: `repeats` has it",
    (
        *TRIAL,
        Column("process", "str", "", "name of the process, container or node"),
        Column("role", "category", "", "`service`, `sidecar`, `generator`, `control-plane` or `node`"),
        Column("cpu_s", "float64", "s", "CPU time in the seconds of `seen_s`"),
        Column("seen_s", "float64", "s", "seconds of the window that are between readings"),
        Column("cpu_cores", "float64", "cores", "CPU: `cpu_s` per second of `seen_s`"),
        Column("cpu_ms_per_request", "float64", "ms", "CPU time per request of the load"),
        Column("rss_max_bytes", "float64", "bytes", "largest resident memory; on a cluster the working set"),
    ),
)

EVIDENCE: Final = Frame(
    "evidence",
    "fact that was checked before or after the load of a trial",
    (
        *TRIAL,
        Column("when", "category", "", "`before` or `after` the load"),
        Column("name", "str", "", "what was checked, such as `mTLS on the wire`"),
        Column("subject", "str", "", "the workload or hop that it was asked of"),
        Column("expected", "str", "", "the answer that the configuration demands"),
        Column("seen", "str", "", "the actual answer"),
        Column("ok", "bool", "", "whether both agree"),
        Column("about", "category", "", "`responses` to users, or the `configuration` itself"),
    ),
)

REQUEST_NAMES: Final = Frame(
    "request_names",
    "request name and trial; empty where all requests have one name",
    (
        _CONFIGURATION,
        TRIAL[1],
        TRIAL[3],
        Column("name", "str", "", "name of the request in the Locust file"),
        Column("requests", "int64", "requests", "requests of this name that started inside the window"),
        Column("errors", "int64", "requests", "those of them without a right response"),
        Column("p50_ms", "float64", "ms", "P50 of the successful ones (nearest rank)"),
        Column("p95_ms", "float64", "ms", "P95 of the successful ones (nearest rank)"),
        TRIAL[4],
    ),
)

PROXY_COSTS: Final = Frame(
    "proxy_costs",
    "configuration with a mesh and statistic, with 95 % intervals",
    (
        *_PAIR,
        Column("statistic", "str", "", "`mean_ms` or `p50_ms`"),
        *_COUNTS,
        Column("hops", "int64", "calls", "sequential calls of a page"),
        Column("proxies", "int64", "proxies", "proxies on the path of a page that the reference does not have"),
        Column("ms_per_proxy", "float64", "ms", "the difference to the reference, divided by `proxies`"),
        Column("low_ms_per_proxy", "float64", "ms", "lower end of its interval"),
        Column("high_ms_per_proxy", "float64", "ms", "upper end of its interval"),
        Column("doubts", "str", "", "warnings about the number"),
        _ISSUES,
    ),
)

FRAMES: Final = (
    SAMPLES,
    REPEATS,
    CONFIGURATIONS,
    CONTRASTS,
    RESOURCES,
    PROCESSES,
    EVIDENCE,
    REQUEST_NAMES,
    PROXY_COSTS,
)

PAGE: Final = Path("docs/dataframes.md")
_INTRODUCTION: Final = """\
# Read a run with pandas

<!-- Generated from bench/frames/columns.py by `python -m bench.frames.columns`; change it there. -->

```python
from bench import open_run

run = open_run("results/example")
run.contrasts().query("metric == 'p95_ms'")[["configuration", "ratio", "ratio_low", "ratio_high", "n", "verdict"]]

counted = run.samples().query("valid and in_window and ok")
counted.groupby("trial").response_ms.describe()
```

Each method returns a DataFrame with the numbers of the report, which is written from the same frames. Percentiles are
those of one repeat, never of the pooled requests of several, so group by `trial`. `valid` and `issues` stand in every
row of a trial: filter by `valid` first. Intervals and counts stand next to each estimate.

`open_run` raises `bench.errors.StoreError` where there is no run, for another version of its format and, with
`strict=True`, for a damaged trial. Without it damaged trials are left out. `run.warnings` lists them, and whatever else
limits the numbers of the run; `attrs` of each frame has them, too, next to `run_id`. `run.record` is `run.json`, and
`run.summary` is `summary.json`, as typed objects.

[The notebook](../notebooks/read_a_run.ipynb) reads the example run this way.
"""


def format_page() -> str:
    """Format the page: one table per frame."""
    return "\n".join((_INTRODUCTION, *(line for frame in FRAMES for line in _format_frame(frame))))


def _format_frame(frame: Frame) -> Iterable[str]:
    yield from (f"## {frame.name}", "", f"`run.{frame.name}()` has one row per {frame.row}.", "")
    yield from ("| column | dtype | unit | meaning |", "|---|---|---|---|")
    yield from (f"| `{c.name}` | {c.dtype} | {c.unit} | {c.meaning} |" for c in frame.columns)
    yield ""


if __name__ == "__main__":
    PAGE.write_text(format_page(), "utf-8")
