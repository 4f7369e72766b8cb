"""Make the lines of a gate's history from a run: its ratios, and the conditions under which it was measured."""

import math
from typing import Any, Final

from bench.analysis.contrast import Side, read_values
from bench.analysis.history import HistoryLine, hash_conditions, hash_value, keep_printable
from bench.analysis.run_summary import order_blocks, summarise
from bench.errors import InputError
from bench.results.environment import COMPARED
from bench.results.records import ANY_NODE
from bench.results.store import StoredRun, list_digests
from bench.results.summary_records import Contrast, SummaryRecord
from bench.scenario.loader import read_stored_checksums
from bench.scenario.model import Load

# None of these changes what a valid trial measures.
_EXCLUDED: Final = {"title", "description", "seed", "margin", "contrasts", "rerun_invalid"}
_OPTIONAL: Final = {"users_each", "options", "env", "tags", "exclude_tags"}


def make_lines(run: StoredRun, *, accepted: str = "") -> tuple[HistoryLine, ...]:
    """Return a run's lines, one for each configuration except the reference.

    Raises InputError where the run has not ended or compares nothing.
    """
    if run.record.status == "running":
        raise InputError(f"{run.path}: this run has not ended; hint: if it was killed, run 'meshbench cleanup'")
    summary, _ = summarise(run)
    contrasts = [contrast for contrast in summary.contrasts if contrast.confirmatory]
    if not contrasts:
        raise InputError(f"{run.path}: compares nothing; hint: a gate needs a scenario with a `reference`")
    known = read_conditions(run)
    return tuple(_make_line(run, summary, contrast, known=known, accepted=accepted) for contrast in contrasts)


def read_conditions(run: StoredRun) -> dict[str, str]:
    """Return everything that has to be equal for two runs to be comparable: scenario, files, target, environment."""
    record = run.record
    scenario = record.scenario.model_dump(mode="json", exclude=_EXCLUDED)
    # Keys of later versions, which no scenario had when the first nights were hashed.
    scenario["application"] = {key: value for key, value in scenario["application"].items() if value is not None}
    scenario["application"] |= scenario["application"].pop("versions")  # its place when the first nights were hashed
    del scenario["design"]  # a condition of its own, with the number of windows
    del scenario["placement"]  # likewise, with the load's nodes
    scenario["load"] = _describe_load(record.scenario.load)
    for one in (scenario, *scenario["configurations"]):
        for key in ("images", "probes"):
            if key in one and not one[key]:
                del one[key]
    environment = {name: str(getattr(record.environment, name)) for name in COMPARED}
    files = "".join(f"{name} {digest}\n" for name, digest in sorted(read_stored_checksums(record.scenario, run.path)))
    known = {"scenario": hash_value(scenario), "files": hash_value(files), "target": record.target.kind, **environment}
    # The first nights were all sequential with whole requests on any node, and are known by conditions without these.
    if record.plan.is_paired:
        known["design"] = record.plan.design_text
    if record.cluster is not None and record.cluster.scale_requests != 1:
        known["share of requests"] = f"{record.cluster.scale_requests:g}"
    if (placement := record.placement_text) != ANY_NODE:
        known["placement"] = placement
    return known


def _describe_load(load: Load) -> dict[str, Any]:
    """Return a load without what the first nights did not have and it does not use. A variable whose value is not
    recorded is known by its name alone: another place to read it from is no other load."""
    known = load.model_dump(mode="json")
    known["env"] = {name: one.value for name, one in load.env.items()}
    return {key: value for key, value in known.items() if key not in _OPTIONAL or value not in (None, {}, [])}


def _make_line(
    run: StoredRun, summary: SummaryRecord, contrast: Contrast, *, known: dict[str, str], accepted: str
) -> HistoryLine:
    record, sides = run.record, (contrast.configuration, contrast.reference)
    measured, reference = (summary.configurations[name] for name in sides)
    one, other = (Side(name, summary.configurations[name].mesh, summary.configurations[name].repeats) for name in sides)
    values = read_values(one, other, contrast.metric, design=record.plan.design, order=order_blocks(run))
    ln_p95_ms, ln_reference_p95_ms = (tuple(map(math.log, side)) for side in values.both)
    valid = measured.valid and reference.valid
    return HistoryLine(
        run_id=record.run_id,
        at=record.started_at,
        scenario=record.scenario.name,
        configuration=contrast.configuration,
        reference=contrast.reference,
        conditions=known,
        versions=_read_versions(run, sides),
        fingerprint=hash_conditions(known),
        margin=record.scenario.margin,
        valid=valid,
        issues=contrast.issues if valid else (*contrast.issues, *record.issues),
        ln_ratio=None if contrast.ratio is None else math.log(contrast.ratio),
        ln_p95_ms=ln_p95_ms,
        ln_reference_p95_ms=ln_reference_p95_ms,
        verdict=contrast.verdict,
        seed=record.plan.seed,
        order=record.plan.order,
        run_exit_code=record.exit_code,
        accepted=keep_printable(accepted),
    )


def _read_versions(run: StoredRun, configurations: tuple[str, str]) -> dict[str, str]:
    """Return the versions of the meshes, and the image of each container that ran on either side."""
    images: dict[str, set[str]] = {}
    for name in configurations:
        for container, digests in list_digests(run, name).items():
            images.setdefault(f"image of {container}", set()).update(digests)
    meshes = run.record.cluster.mesh_versions if run.record.cluster else {}
    return {**meshes, **{container: ", ".join(sorted(digests)) for container, digests in sorted(images.items())}}
