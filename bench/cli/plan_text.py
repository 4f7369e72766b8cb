"""Format what a run would do: the text and the JSON of `meshbench plan`."""

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.analysis.stats import minimum_detectable_effect, paired_detectable_effect
from bench.application.replacements import Replacement
from bench.files.yaml_source import Document
from bench.load.locustfile_check import is_shipped
from bench.meshes.equalise import format_equalised
from bench.meshes.resolved import ResolvedConfiguration, ResolvedScenario
from bench.meshes.rewriting import Rewrite
from bench.results.issues import IssueCode
from bench.run.space import forecast_run
from bench.scenario.contrasts import list_comparisons
from bench.scenario.model import Scenario
from bench.scenario.plan import Plan, estimate_seconds
from bench.units import format_change, format_counted, format_duration, format_first

if TYPE_CHECKING:
    from bench.load.locustfile_check import Inspection

# Run-to-run standard deviations of ln P95: a quiet dedicated machine, an ordinary one, a shared one with 10 s windows.
SPREADS = (0.02, 0.05, 0.10)
# Standard deviations of the ln P95 ratio of blocks, as measured on two shared cores.
BLOCK_SPREADS = (0.05, 0.08, 0.14)
_MOST_LISTED = 20


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """What a run would do on a cluster: the cluster, the duration in seconds, and the objects that it creates (`lines`
    of text, `facts` for JSON)."""

    where: str
    seconds: float
    lines: tuple[str, ...]
    facts: Mapping[str, Any]


def format_plan(
    resolved: ResolvedScenario, plan: Plan, elsewhere: ClusterPlan | None = None, rewrites: Sequence[Rewrite] = ()
) -> str:
    """Format the order of trials, the time, the processes or objects, the names of manifests that differ on a cluster,
    and the minimum detectable effect."""
    scenario = resolved.scenario
    blocks = [f"  block {number}: {', '.join(names)}" for number, names in enumerate(plan.order, start=1)]
    differ = "ratios of blocks differ" if scenario.is_paired else "repeats differ"
    effects = [
        f"  {format_change(1 + effect):>6} if {differ} by {format_change(1 + spread)[1:]}"
        for spread, effect in list_detectable_effects(scenario)
    ]
    return "\n".join(
        [
            f"{scenario.name}: {scenario.title}",
            f"{len(plan.trials)} trials, about {_format_time(scenario, plan, elsewhere)}",
            f"design: {_describe_design(scenario, plan)}",
            *textwrap.wrap(f"records: {forecast_run(resolved, plan)}", 120),
            *textwrap.wrap("; ".join(list_remarks(resolved)), 120),
            f"order ({plan.method}; seed {plan.seed}):",
            *blocks,
            *(["  then a rerun of each invalid block"] if scenario.reruns_invalid else []),
            *(elsewhere.lines if elsewhere else _format_processes(resolved)),
            *([f"equalised in all meshes: {format_equalised(scenario.equalise)}"] if scenario.equalise else []),
            *format_own_parts(resolved),
            *format_locust(resolved),
            *_format_rewrites(rewrites),
            "comparisons, P95 first:",
            *(_format_comparisons(scenario) or ["  none: there is no reference"]),
            "smallest difference in P95 that would be found (80 % power, 95 % confidence):",
            *(effects or ["  none: one repeat has no interval"]),
        ]
    )


def list_remarks(resolved: ResolvedScenario) -> Iterator[str]:
    """Yield the remarks that have no section of their own."""
    return (one.detail for one in resolved.remarks if one.code is not IssueCode.LEFT_OUT)


def _describe_design(scenario: Scenario, plan: Plan) -> str:
    """Describe when each configuration has its load."""
    load, count = scenario.load, len(scenario.configurations)
    if not plan.is_paired:
        return "sequential, each configuration deployed and loaded alone"
    if plan.design == "interleaved":
        window = format_duration(load.duration_s / plan.rounds)
        return f"interleaved, all of a block deployed, and loaded in turn in {plan.rounds} windows of {window} each"
    first = scenario.load_of(scenario.configurations[0].name)
    each = format_counted(first.users, "user") if first.rate_per_s is None else f"{first.rate_per_s:g} requests/s"
    return f"duet, all {count} of a block deployed, and loaded at once with {each} each"


def _format_time(scenario: Scenario, plan: Plan, elsewhere: ClusterPlan | None) -> str:
    if elsewhere is None:
        return f"{format_duration(estimate_seconds(scenario, plan))} on this machine"
    return f"{format_duration(elsewhere.seconds)} on {elsewhere.where}"


def _format_processes(resolved: ResolvedScenario) -> tuple[str, ...]:
    ignored = ("  placement is for a cluster, and ignored here",) if resolved.scenario.placement.describe() else ()
    started = (f"  {one.name}: {_describe_processes(one)}" for one in resolved.configurations)
    return ("each trial starts, as processes on 127.0.0.1:", *started, *ignored)


def format_own_parts(resolved: ResolvedScenario) -> Iterator[str]:
    """Yield what of the manifests is not applied, what names its namespaces and is not rewritten, and what single
    configurations have of their own: images, and objects of the application with file and line."""
    if left_out := resolved.list_left_out():
        yield "of the manifests is not applied:"
        yield from (f"  {one}" for one in left_out)
    yield from (f"warning: {one}" for one in resolved.list_mentions())
    images = [
        f"  {one.name}: {name} is {ref}" for one in resolved.configurations for name, ref in one.settings.images.items()
    ]
    if images:
        yield "images of single configurations:"
        yield from images
    objects = [
        f"  {one.name}: {_describe(part, resolved)}" for one in resolved.configurations for part in one.replacements
    ]
    if objects:
        yield "objects of the application in single configurations:"
        yield from objects


def _describe(part: Replacement, resolved: ResolvedScenario) -> str:
    own = f"{part.subject} of {_locate(part.document, resolved)}"
    return f"{own} in place of {_locate(part.replaced, resolved)}" if part.replaced else f"{own} is added"


def _locate(document: Document, resolved: ResolvedScenario) -> str:
    """Return file and line of an object."""
    return f"{resolved.shorten(Path(document.file))}:{document.line_of(('kind',))}"


def _list_own_parts(resolved: ResolvedScenario) -> dict[str, Any]:
    """Return the same for programs, by configuration."""
    return {
        one.name: {
            "images": dict(one.settings.images),
            "objects": [
                {
                    "object": part.subject,
                    "at": _locate(part.document, resolved),
                    "in_place_of": _locate(part.replaced, resolved) if part.replaced else None,
                }
                for part in one.replacements
            ],
        }
        for one in resolved.configurations
        if one.settings.images or one.replacements
    }


def format_locust(resolved: ResolvedScenario, found: "Inspection | None" = None) -> Iterator[str]:
    """Yield what the Locust file gets from the scenario, and which files travel with it; and what Locust has `found` in
    it. Nothing for a shipped file that gets nothing."""
    load, locust = resolved.scenario.load, resolved.inputs.locust
    shipped = is_shipped(locust.locustfile)
    options = (f"--{name}" if value is True else f"--{name}={value}" for name, value in load.options.items())
    parts = {
        "user classes": found.users if found else (),
        "options that it declares": found.options if found else (),
        "options": options,
        "variables": (f"{name} {'' if one.is_secret else '= '}{one}" for name, one in load.env.items()),
        "tags": load.tags,
        "excluded tags": load.exclude_tags,
        "files that travel with it": () if shipped else locust.helpers,
        "left out": () if shipped else (f"{one.name} ({one.why})" for one in locust.left_out),
    }
    lines = [f"  {title}: {format_first(words, _MOST_LISTED)}" for title, each in parts.items() if (words := [*each])]
    if lines:
        yield f"{locust.locustfile.name}:"
        yield from lines


def _list_locust(resolved: ResolvedScenario) -> dict[str, Any]:
    """Return the files of the Locust file's folder for programs; the scenario has the rest."""
    locust = resolved.inputs.locust
    return {
        "files": [name for name, _ in locust.files],
        "left_out": [asdict(one) for one in locust.left_out],
    }


def _format_rewrites(rewrites: Sequence[Rewrite]) -> Iterator[str]:
    """Yield each name once, with the files and lines that have it."""
    if not rewrites:
        return
    yield "on a cluster, names in manifests differ (RUN stands for the end of the run's id):"
    key = attrgetter("kind", "written", "runs")
    for (kind, written, runs), same in groupby(sorted(rewrites, key=key), key):
        yield f"  {kind} {written or '(none)'} -> {runs}"
        lines: dict[str, list[str]] = {}
        for one in same:
            lines.setdefault(one.file, []).append(str(one.line))
        places = ", ".join(f"{file}:{','.join(dict.fromkeys(numbers))}" for file, numbers in lines.items())
        yield from textwrap.wrap(
            places, 120, initial_indent="    ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )


def format_plan_json(
    resolved: ResolvedScenario, plan: Plan, elsewhere: ClusterPlan | None = None, rewrites: Sequence[Rewrite] = ()
) -> str:
    """Format the same as JSON; `dry_run` is always true."""
    scenario = resolved.scenario
    return json.dumps(
        {
            "dry_run": True,
            "scenario": scenario.model_dump(mode="json"),
            "plan": plan.model_dump(mode="json"),
            "remarks": [remark.detail for remark in resolved.remarks],
            "comparisons": [asdict(pair) for pair in list_comparisons(scenario)],
            "seconds": elsewhere.seconds if elsewhere else estimate_seconds(scenario, plan),
            "records": asdict(forecast_run(resolved, plan)),
            **({"cluster": dict(elsewhere.facts)} if elsewhere else {}),
            "rewrites": [asdict(one) for one in rewrites],
            "own": _list_own_parts(resolved),
            "left_out": list(resolved.list_left_out()),
            "mentions": [asdict(one) for one in resolved.list_mentions()],
            "locust": _list_locust(resolved),
            "detectable": [
                {"spread": spread, "effect": effect} for spread, effect in list_detectable_effects(scenario)
            ],
        },
        indent=2,
    )


def list_detectable_effects(scenario: Scenario) -> list[tuple[float, float]]:
    """Return pairs of an assumed spread and its minimum detectable effect, both as ratios minus 1. The spread is that
    between repeats, or in a paired design between the ratios of blocks."""
    if scenario.is_paired:
        found = [(spread, paired_detectable_effect(spread, scenario.repeats)) for spread in BLOCK_SPREADS]
    else:
        found = [(spread, minimum_detectable_effect(spread, scenario.repeats)) for spread in SPREADS]
    return [(spread, effect) for spread, effect in found if effect is not None]


def _format_comparisons(scenario: Scenario) -> list[str]:
    """Format the pairs of configurations to compare, a line for each standing."""
    direct: list[str] = []
    named: list[str] = []
    steps: list[str] = []
    for pair in list_comparisons(scenario):
        kind = direct if pair.reference == scenario.reference else named if pair.named else steps
        kind.append(f"{pair.configuration} with {pair.reference}")
    kinds = (("", direct), ("planned: ", named), ("exploratory: ", steps))
    return [f"  {kind}{', '.join(pairs)}" for kind, pairs in kinds if pairs]


def _describe_processes(configuration: ResolvedConfiguration) -> str:
    load, mesh = configuration.load, configuration.mesh
    services = len(configuration.application.workloads)
    sidecars = f"{services + 1} {mesh.data_plane.title} sidecars" if mesh else "no sidecar"
    loop = f"{load.rate_per_s:g}/s from at most {load.users} users" if load.rate_per_s else f"{load.users} users"
    return f"{services} services, {sidecars}, Locust with {loop}"
