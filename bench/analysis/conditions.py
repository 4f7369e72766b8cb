"""Tell apart what two runs measured, which may be two builds, and how they measured it, which has to be equal.

A build is what is deployed: images, versions, manifests and meshes. Conditions are everything else that a number
depends on: the machine or cluster, the load and its generator, the design, and what is equalised.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, Final

from bench.results.environment import find_differences
from bench.results.records import RunRecord
from bench.results.store import StoredRun, list_digests
from bench.scenario.load_settings import EnvironmentValue
from bench.scenario.loader import read_stored_checksums
from bench.scenario.model import Load
from bench.scenario.versions import LOAD
from bench.system.private_files import read_index

_VALUES: Final = "values"  # the folder of a run with the values files of its meshes
_PROXY: Final = "envoy"  # on one machine its version is the build of all proxies
_CLUSTER_BUILD: Final = ("registry", "hub", "tag", "revision", "mesh_versions")


def find_run_differences(one: RunRecord, other: RunRecord) -> tuple[str, ...]:
    """List the differences that make two runs incomparable: environment, target, design, application, load,
    equalise."""
    ours, theirs = one.scenario, other.scenario
    same = ours.application == theirs.application
    application = [] if same else [f"application: {ours.application} / {theirs.application}"]
    return (
        *find_differences(one.environment, other.environment),
        *_find_target_differences(one, other),
        *application,
        *_find_load_differences(one, other),
    )


def find_condition_differences(one: StoredRun, other: StoredRun) -> tuple[str, ...]:
    """List the differences between two runs in how they were measured; two builds may differ in everything else."""
    ours, theirs = one.record, other.record
    environment = find_differences(ours.environment, theirs.environment)
    return (
        *(text for text in environment if not text.startswith(f"{_PROXY}: ")),
        *_find_target_differences(ours, theirs),
        *_differ("application", ours.scenario.application.name, theirs.scenario.application.name),
        *_differ("image of the load", _find_load_image(ours), _find_load_image(theirs)),
        *_differ("share of requests", _find_share(ours), _find_share(theirs)),
        *_differ("existing mesh", _uses_existing_mesh(ours), _uses_existing_mesh(theirs)),
        *_differ("isolation", ours.scenario.isolation, theirs.scenario.isolation),
        *_differ("reference", ours.scenario.reference, theirs.scenario.reference),
        *_find_mesh_differences(ours, theirs),
        *_find_load_differences(ours, theirs),
        *(["the Locust file"] if _read_locustfile(one) != _read_locustfile(other) else []),
    )


def find_build_differences(one: StoredRun, other: StoredRun) -> tuple[str, ...]:
    """List the differences between two runs in what was deployed, as text."""
    return (*_find_common_builds(one, other), *_find_own_builds(one, other))


def find_builds_of(one: StoredRun, other: StoredRun, configuration: str) -> tuple[str, ...]:
    """List those of them that one configuration has, as text."""
    start = f"{configuration}: "
    own = tuple(text for text in _find_own_builds(one, other) if text.startswith(start))
    has_mesh = one.record.scenario.configuration(configuration).mesh != "none"
    common = _find_common_builds(one, other) if has_mesh else _find_application_builds(one.record, other.record)
    return (*common, *own)


def _find_target_differences(one: RunRecord, other: RunRecord) -> Iterator[str]:
    yield from _differ("target", one.target.kind, other.target.kind)
    yield from _differ("design", one.plan.design_text, other.plan.design_text)
    yield from _differ("placement", one.placement_text, other.placement_text)


def _find_load_differences(one: RunRecord, other: RunRecord) -> Iterator[str]:
    ours, theirs = one.scenario, other.scenario
    for name in _list_shared(one, other):
        yield from _differ(f"load of {name}", *(_hide_origins(one.load_of(name)) for one in (ours, theirs)))
    keys = [", ".join(sorted(scenario.equalise)) or "nothing" for scenario in (ours, theirs)]
    yield from _differ("equalise", *keys)


def _hide_origins(load: Load) -> Load:
    """Return a load whose variables do not say where a value that is not recorded is read: that may differ."""
    hidden = EnvironmentValue(env="not_recorded")
    return load.model_copy(update={"env": {name: hidden if one.is_secret else one for name, one in load.env.items()}})


def _find_mesh_differences(one: RunRecord, other: RunRecord) -> Iterator[str]:
    for name in _list_shared(one, other):
        yield from _differ(
            f"mesh of {name}", one.scenario.configuration(name).mesh, other.scenario.configuration(name).mesh
        )


def _find_application_builds(one: RunRecord, other: RunRecord) -> Iterator[str]:
    """Yield what all configurations of a run have."""
    ours, theirs = one.scenario.application, other.scenario.application
    yield from _differ("versions", _format_map(ours.versions), _format_map(theirs.versions))
    images = [
        {**record.scenario.application.images, **(record.cluster.images if record.cluster else {})}
        for record in (one, other)
    ]
    yield from _differ(
        "images", *(_format_map({name: ref for name, ref in one.items() if name != LOAD}) for one in images)
    )


def _find_common_builds(one: StoredRun, other: StoredRun) -> Iterator[str]:
    """Yield what all configurations of a run have, and what those with a mesh have."""
    ours, theirs = one.record, other.record
    yield from _find_application_builds(ours, theirs)
    yield from _differ(_PROXY, ours.environment.envoy, theirs.environment.envoy)
    if ours.cluster is not None and theirs.cluster is not None:
        for field in _CLUSTER_BUILD:
            yield from _differ(field, *(_format_map(getattr(one, field)) for one in (ours.cluster, theirs.cluster)))
    if _read_values(one) != _read_values(other):
        yield "mesh_values"


def _read_values(run: StoredRun) -> dict[str, str]:
    """Return the checksums of the meshes' values files, which runs of older versions have in their folder."""
    if (index := read_index(run.path)) and (private := index.select(_VALUES)):
        return {name: one.scrypt for name, one in private.items()}
    folder = run.path / _VALUES
    files = folder.iterdir() if folder.is_dir() else ()
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _find_own_builds(one: StoredRun, other: StoredRun) -> Iterator[str]:
    """Yield the differences of single configurations: images, manifests and the digests that ran."""
    files = _read_files(one), _read_files(other)
    for name in _list_shared(one.record, other.record):
        sides = [run.record.scenario.configuration(name) for run in (one, other)]
        yield from _differ(f"{name}: images", *(_format_map(side.images) for side in sides))
        folders = [
            {folder: own.get(folder) for folder in side.manifests} for side, own in zip(sides, files, strict=True)
        ]
        if folders[0] != folders[1]:
            yield f"{name}: manifests"
        digests = [list_digests(run, name) for run in (one, other)]
        yield from (
            f"{name}: image of {container}"
            for container in sorted(digests[0].keys() & digests[1].keys())
            if digests[0][container] != digests[1][container]
        )


def _read_files(run: StoredRun) -> dict[str, tuple[tuple[str, str], ...]]:
    """Return names and checksums of the stored manifests, by folder as the scenario names it."""
    checksums = sorted(read_stored_checksums(run.record.scenario, run.path))
    folders = {name for one in run.record.scenario.configurations for name in one.manifests}
    return {
        folder: tuple((name, digest) for name, digest in checksums if name.startswith(f"manifests/{folder}/"))
        for folder in folders
    }


def _read_locustfile(run: StoredRun) -> list[tuple[str, str]]:
    """Return names and checksums of the Locust file and of what travels with it."""
    checksums = read_stored_checksums(run.record.scenario, run.path)
    return [one for one in checksums if not one[0].startswith("manifests/")]


def _list_shared(one: RunRecord, other: RunRecord) -> list[str]:
    known = {configuration.name for configuration in other.scenario.configurations}
    return [each.name for each in one.scenario.configurations if each.name in known]


def _find_load_image(record: RunRecord) -> str:
    images = record.cluster.images if record.cluster else {}
    return images.get(LOAD, "") or record.scenario.application.images.get(LOAD, "") or "that of its manifest"


def _find_share(record: RunRecord) -> float:
    return record.cluster.scale_requests if record.cluster else 1.0


def _uses_existing_mesh(record: RunRecord) -> bool:
    return record.cluster is not None and record.cluster.existing_mesh


def _differ(what: str, one: Any, other: Any) -> Iterable[str]:
    return [] if one == other else [f"{what}: {one} / {other}"]


def _format_map(values: Any) -> str:
    if not isinstance(values, dict):
        return str(values) or "none"
    return ", ".join(f"{name}={value}" for name, value in sorted(values.items())) or "none"
