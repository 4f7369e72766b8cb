"""What a run would do, in words: for `meshbench plan`."""

import json

from bench.plan import Plan, expected_seconds
from bench.scenario import Scenario
from bench.stats import minimum_detectable_effect
from bench.units import format_change, format_duration

# Run-to-run standard deviations of ln P95: a quiet dedicated machine, an ordinary one, a shared one with 10 s windows.
SPREADS = (0.02, 0.05, 0.10)


def outline(scenario: Scenario, plan: Plan) -> str:
    """Order, time, what is started, and the smallest effect that could be seen."""
    blocks = [f"  block {number}: {', '.join(names)}" for number, names in enumerate(plan.order, start=1)]
    effects = [
        f"  {format_change(1 + effect):>6} if repeats differ by {format_change(1 + spread)[1:]}"
        for spread, effect in detectable(scenario)
    ]
    return "\n".join(
        [
            f"{scenario.name}: {scenario.title}",
            f"{len(plan.trials)} trials, about {format_duration(expected_seconds(scenario, plan))} on this machine",
            f"order ({plan.method}; seed {plan.seed}):",
            *blocks,
            "each trial starts, as processes on 127.0.0.1:",
            *(
                f"  {configuration.name}: {_started(scenario, configuration.name)}"
                for configuration in scenario.configurations
            ),
            "smallest difference in P95 that would be found (80 % power, 95 % confidence):",
            *(effects or ["  none: one repeat has no interval"]),
        ]
    )


def outline_json(scenario: Scenario, plan: Plan) -> str:
    """The same for programs; `dry_run` is always true."""
    return json.dumps(
        {
            "dry_run": True,
            "scenario": scenario.model_dump(mode="json"),
            "plan": plan.model_dump(mode="json"),
            "seconds": expected_seconds(scenario, plan),
            "detectable": [{"spread": spread, "effect": effect} for spread, effect in detectable(scenario)],
        },
        indent=2,
    )


def detectable(scenario: Scenario) -> list[tuple[float, float]]:
    """Pairs of an assumed spread between repeats and the effect that could then be found, as ratios minus 1."""
    found = [(spread, minimum_detectable_effect(spread, scenario.repeats)) for spread in SPREADS]
    return [(spread, effect) for spread, effect in found if effect is not None]


def _started(scenario: Scenario, name: str) -> str:
    load = scenario.load_of(name)
    mesh = scenario.configuration(name).mesh
    sidecars = "no sidecar" if mesh == "none" else "5 Envoy sidecars"
    loop = f"{load.rate_per_s:g}/s from at most {load.users} users" if load.rate_per_s else f"{load.users} users"
    return f"4 services, {sidecars}, Locust with {loop}"
