"""The cost of one proxy, and the number of proxies on the path of a page."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bench.analysis.proxy_cost import estimate_hop_costs, measure_path
from bench.analysis.run_summary import summarise
from bench.application.model import Application, Gateway, Service, Workload
from bench.files.folders import find_shipped
from bench.results.records import PathLength
from bench.results.summary_records import HopCost, ProcessUse, RepeatSummary
from tests.applications import read_bookinfo
from tests.factory import ISTIO_POLICIES, RunSpec, make_run
from tests.issues import codes, issue
from tests.summaries import configuration, repeat

WAYS = {"baseline": PathLength(hops=4, proxies=0), "istio": PathLength(hops=4, proxies=8)}
BOOKINFO = find_shipped("manifests") / "bookinfo"


def one(block: int, mean_ms: float, *, valid: bool = True, cores: float = 0.2) -> RepeatSummary:
    """A repeat with this mean, and a P50 1 ms below it."""
    use = ProcessUse(
        process="app", role="service", cpu_s=cores * 10, seen_s=10, cpu_ms_per_request=1, rss_max_bytes=None
    )
    return repeat(block=block, valid=valid, mean_ms=mean_ms, p50_ms=mean_ms - 1, resources=(use,))


def costs(base: Sequence[RepeatSummary], istio: Sequence[RepeatSummary], **changes: int) -> list[HopCost]:
    """The costs of a baseline and a mesh with these repeats, on four CPUs."""
    sides = {"baseline": configuration(repeats=tuple(base)), "istio": configuration(repeats=tuple(istio), **changes)}
    return list(estimate_hop_costs(sides, "baseline", paths=WAYS, cpus=4))


def many(means: Sequence[float], *, cores: float = 0.2) -> list[RepeatSummary]:
    return [one(block, mean, cores=cores) for block, mean in enumerate(means, start=1)]


def test_cost_is_difference_of_means_per_proxy() -> None:
    """Eight proxies share the difference in ms, with its Welch interval as SciPy computes it."""
    base, istio = [5.0, 5.2, 4.9], [9.0, 9.6, 9.1]
    mean, median = costs(many(base), many(istio))
    assert (mean.statistic, median.statistic) == ("mean_ms", "p50_ms")
    assert mean.ms_per_proxy == pytest.approx((np.mean(istio) - np.mean(base)) / 8)
    interval = stats.ttest_ind(istio, base, equal_var=False).confidence_interval(0.95)
    assert mean.low_ms_per_proxy == pytest.approx(interval.low / 8)
    assert mean.high_ms_per_proxy == pytest.approx(interval.high / 8)
    assert (mean.n, mean.hops, mean.proxies, mean.issues) == ((3, 3), 4, 8, ())


def test_single_repeat_has_cost_without_interval() -> None:
    """There is a number, no interval, and the reason."""
    mean, _ = costs(many([5.0]), many([9.0]))
    assert mean.ms_per_proxy == pytest.approx(0.5)
    assert (mean.low_ms_per_proxy, mean.high_ms_per_proxy) == (None, None)
    assert "one repeat" in mean.issues[0].detail


def test_warns_if_interval_contains_zero() -> None:
    """An interval that contains 0 does not distinguish the cost from zero."""
    mean, _ = costs(many([5.0, 6.0]), many([5.4, 6.6]))
    assert mean.issues == (issue("maybe-zero", "may be zero: the interval includes 0"),)


def test_warns_about_busy_cpus() -> None:
    """Where processes used half of the CPUs or more, waiting is part of the cost."""
    mean, _ = costs(many([5.0, 5.1]), many([9.0, 9.1], cores=3.1))
    assert mean.issues == (issue("busy-cpus", "CPUs were at least 78 % busy: waiting for them is included"),)


def test_leaves_out_invalid_repeats() -> None:
    """If no valid repeat is left, there is a reason in place of a number."""
    mean, _ = costs(many([5.0, 5.1]), [one(1, 9.0), one(2, 99.0, valid=False)])
    assert mean.ms_per_proxy == pytest.approx((9.0 - 5.05) / 8)
    mean, _ = costs(many([5.0, 5.1]), [one(1, 9.0, valid=False)])
    assert (mean.ms_per_proxy, codes(mean.issues)) == (None, ["no-valid-repeat"])


def test_other_load_or_no_proxies_have_no_cost() -> None:
    """Another load has other queues, and without an additional proxy there is nothing to divide by."""
    assert costs(many([5.0]), many([9.0]), users=50) == []
    sides = {"a": configuration(repeats=tuple(many([5.0]))), "b": configuration(repeats=tuple(many([9.0])))}
    assert list(estimate_hop_costs(sides, "a", paths=dict.fromkeys("ab", WAYS["baseline"]), cpus=4)) == []


@pytest.mark.parametrize(("reviews", "hops"), [("v1", 3), ("v2", 4), ("v3", 4)])
def test_page_crosses_two_proxies_per_call(reviews: str, hops: int) -> None:
    """Reviews v1 does not call ratings: one call and two proxies less; without a mesh there are none."""
    application = read_bookinfo(reviews)
    assert measure_path(application, "istio") == PathLength(hops=hops, proxies=2 * hops)
    assert measure_path(application, "none") == PathLength(hops=hops, proxies=0)


def gateway(proxy: dict[str, str] | None) -> Application:
    """Bookinfo behind a gateway: the mesh's own, or, with a `proxy`, one with a sidecar."""
    application = read_bookinfo("v3")
    workload = Workload("gateway", "v1", "gateway", {"app": "gateway", "version": "v1"}, 8080)
    return application.entered_by(Gateway(Service("gateway", (80,), (workload,)), (), proxy))


def test_counts_gateway_and_its_sidecar() -> None:
    """A gateway replaces the load's sidecar; one that is not part of the mesh has a sidecar."""
    assert measure_path(gateway(None), "istio") == PathLength(hops=5, proxies=8)
    assert measure_path(gateway({}), "kuma") == PathLength(hops=5, proxies=9)


def test_several_versions_have_no_proxy_count() -> None:
    """Where a service has several versions, pages cross different numbers of proxies."""
    assert measure_path(read_bookinfo(("v1", "v2", "v3")), "istio") is None


def test_summary_has_costs_of_each_mesh(tmp_path: Path) -> None:
    """summary.json has both statistics of every configuration with a mesh, from the run's folder alone."""
    run = make_run(tmp_path, RunSpec(warmup_s=1.0, duration_s=4.0, repeats=2))
    found = summarise(run)[0]
    assert [(cost.configuration, cost.proxies, cost.statistic) for cost in found.hop_costs] == [
        (name, 8, statistic) for name in ("istio", "istio-policies") for statistic in ("mean_ms", "p50_ms")
    ]
    istio, baseline = (
        np.mean([r.mean_ms for r in found.configurations[name].repeats if r.mean_ms]) for name in ("istio", "baseline")
    )
    assert found.hop_costs[0].ms_per_proxy == pytest.approx((istio - baseline) / 8)


def test_missing_manifests_leave_out_the_costs(tmp_path: Path) -> None:
    """A folder without its manifests is still summarised, without a guess of the path."""
    run = make_run(tmp_path, RunSpec(warmup_s=1.0, duration_s=3.0, repeats=1, configurations=ISTIO_POLICIES))
    for file in (run.path / "manifests" / "istio+policies").iterdir():
        file.unlink()
    found = summarise(run)[0]
    assert {cost.configuration for cost in found.hop_costs} == {"istio"}
    assert found.configurations["istio-policies"].p95_ms is not None
