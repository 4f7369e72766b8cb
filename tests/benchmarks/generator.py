"""What recording costs the load generator: Locust's CPU time per request with the recorder and without, in turn."""

import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench.load.generator import LoadSpec
from bench.targets.local.locust import fill_work, make_local_argv
from bench.units import format_change
from tests.benchmarks.children import cpu_ns
from tests.benchmarks.figure import Figure, Pairs, format_s
from tests.benchmarks.fixed_page import FixedPage, fixed_page
from tests.bookinfo import ROOT, connect, fetch, running

_USERS = 20
_THINK_S = 0.1
_SETTLE_S = 2.0
_MEASURE_S = 10.0
_START_TIMEOUT_S = 30.0
_AIM = 1.05
_RECORDERS_OPTIONS = "--meshbench-"


def figures(pairs: int) -> Iterator[Figure]:
    """Yield the ratio, pair by pair, and both times."""
    with fixed_page(_bookinfos_page()) as page:
        measured = [(_cpu_s(page, recorded=False), _cpu_s(page, recorded=True)) for _ in range(pairs)]
    found = Pairs.of(measured)
    yield Figure(
        what="Locust's CPU per request, with recorder / without",
        value=format_change(found.median),
        spread=found.summary,
        aim="<= +5.0 %",
        met=found.median <= _AIM,
    )
    plain, recorded = (median(times) for times in zip(*measured, strict=True))
    yield Figure(what="CPU per request with recorder", value=format_s(recorded))
    yield Figure(what="CPU per request without", value=format_s(plain))


def without_recorder(argv: Sequence[str]) -> list[str]:
    """Return the same command line without the recorder's file and its options."""
    options = [place for place, part in enumerate(argv) if part.startswith(_RECORDERS_OPTIONS)]
    left_out = {place + step for place in options for step in (0, 1)}
    plain = [part for place, part in enumerate(argv) if place not in left_out]
    files = plain.index("--locustfile") + 1
    plain[files] = plain[files].partition(",")[2]
    address = argv[argv.index("--meshbench-lead") + 1].partition("=")[0]
    plain[plain.index("--host") + 1] = f"http://{address}"  # nothing leads there
    return plain


def _cpu_s(page: FixedPage, *, recorded: bool) -> float:
    """Return Locust's CPU time per request, between two moments under steady load: without its start and its end."""
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "load.log").open("w+b") as log:
        order = _order(page.address)
        fill_work(order, Path(folder))
        argv = make_local_argv(order, Path(folder))
        locust = subprocess.Popen(argv if recorded else without_recorder(argv), cwd=folder, stdout=log, stderr=log)
        try:
            _wait_for_load(page, locust, log=Path(log.name))
            time.sleep(_SETTLE_S)
            cpu, count = cpu_ns(locust.pid), page.count
            time.sleep(_MEASURE_S)
            return (cpu_ns(locust.pid) - cpu) / (page.count - count) / 1e9
        finally:
            locust.terminate()
            locust.wait()


def _order(address: str) -> LoadSpec:
    return LoadSpec(
        address=address,
        virtual_host="productpage:9080",
        locustfile=ROOT / "locustfiles" / "bookinfo.py",
        versions={"reviews": "v3"},
        users=_USERS,
        think_time_s=_THINK_S,
        rate_per_s=None,
        warmup_s=_SETTLE_S,
        duration_s=_MEASURE_S,
        seed=1,
    )


def _wait_for_load(page: FixedPage, locust: "subprocess.Popen[bytes]", *, log: Path) -> None:
    """Wait until every user has sent one request."""
    enough, deadline = page.count + _USERS, time.monotonic() + _START_TIMEOUT_S
    while page.count < enough:
        if locust.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"Locust does not load the page:\n{log.read_text('utf-8', 'replace')}")
        time.sleep(0.02)


def _bookinfos_page() -> bytes:
    """Return Bookinfo's complete product page."""
    with ExitStack() as stack:
        details, ratings = (stack.enter_context(running(name)) for name in ("details", "ratings"))
        reviews = stack.enter_context(running("reviews", "--version", "v3", *connect(ratings=ratings)))
        front = stack.enter_context(running("productpage", *connect(details, reviews, ratings)))
        return fetch(front, "/productpage").body
