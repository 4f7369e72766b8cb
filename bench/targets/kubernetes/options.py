"""What the user wants of a cluster: flags and scenario together, or the record of the run that is resumed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.cluster_flags import ClusterFlags
from bench.errors import InputError
from bench.records import RunRecord
from bench.scenario import Scenario
from bench.settings import WORKLOADS

VALUES: Final = "values"  # the folder of a run that keeps the meshes' values files


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """Checked flags. `images` by workload, as `images.image_of` reads them, `mesh_values` by mesh, on top of ours."""

    context: str
    yes_this_cluster: str | None
    agreed: bool
    images: Mapping[str, str]
    registry: str
    mesh_values: Mapping[str, tuple[Path, ...]]
    hub: str
    tag: str
    revision: str
    existing_mesh: bool
    keep: bool
    locust_ui: int | None
    prometheus: str


def meshes_of(scenario: Scenario) -> tuple[str, ...]:
    """The meshes that a scenario needs, in the order of their names."""
    return tuple(sorted({one.mesh for one in scenario.configurations if one.mesh != "none"}))


def read_options(flags: ClusterFlags, scenario: Scenario) -> ClusterOptions:
    """The flags of a new run, checked against its scenario. Raises InputError."""
    assert flags.context is not None  # noqa: S101  # the command line chose this target by it
    meshes = meshes_of(scenario)
    if flags.mesh_revision and "istio" not in meshes:
        raise InputError("--mesh-revision names Istio's revision, and this scenario has no Istio; leave it out")
    if (flags.mesh_hub or flags.mesh_tag) and len(meshes) > 1:
        raise InputError(
            "--mesh-hub and --mesh-tag would mean both meshes; give their images by --mesh-values MESH=FILE"
        )
    return ClusterOptions(
        context=flags.context,
        yes_this_cluster=flags.yes_this_cluster,
        agreed=flags.yes,
        images={**scenario.application.images, **dict(map(_image, flags.image))},  # type: ignore[dict-item]
        registry=flags.registry,
        mesh_values=_values(flags.mesh_values, meshes),
        hub=flags.mesh_hub,
        tag=flags.mesh_tag,
        revision=flags.mesh_revision,
        existing_mesh=flags.use_existing_mesh,
        keep=flags.keep,
        locust_ui=flags.locust_ui,
        prometheus=flags.prometheus,
    )


def resumed_options(flags: ClusterFlags, record: RunRecord, run: Path) -> ClusterOptions:
    """The options that a run was begun with. Raises InputError where the run was not on a cluster."""
    assert flags.context is not None  # noqa: S101
    stored = record.cluster
    if stored is None:
        raise InputError(f"{run}: was measured on one machine; resume it without --context")
    values = {mesh: tuple(run / VALUES / name for name in names) for mesh, names in stored.mesh_values.items()}
    return ClusterOptions(
        context=flags.context,
        yes_this_cluster=flags.yes_this_cluster,
        agreed=flags.yes,
        images=stored.images,
        registry=stored.registry,
        mesh_values=values,
        hub=stored.hub,
        tag=stored.tag,
        revision=stored.revision,
        existing_mesh=stored.existing_mesh,
        keep=flags.keep,
        locust_ui=flags.locust_ui,
        prometheus=flags.prometheus,
    )


def _image(text: str) -> tuple[str, str]:
    name, _, reference = text.partition("=")
    if name not in WORKLOADS or not reference:
        raise InputError(f"--image {text}: write NAME=REF, with NAME one of {', '.join(WORKLOADS)}")
    return name, reference


def _values(given: tuple[str, ...], meshes: tuple[str, ...]) -> dict[str, tuple[Path, ...]]:
    """`--mesh-values`, by mesh; without a mesh's name the scenario's only one is meant."""
    found: dict[str, tuple[Path, ...]] = {}
    for text in given:
        mesh, _, name = text.rpartition("=")
        known = " and ".join(meshes) or "no mesh"
        if not mesh and len(meshes) != 1:
            raise InputError(f"--mesh-values {text}: this scenario has {known}; write MESH=FILE")
        mesh = mesh or meshes[0]
        if mesh not in meshes:
            raise InputError(f"--mesh-values {text}: this scenario has {known}, not {mesh}")
        if not Path(name).is_file():
            raise InputError(f"--mesh-values {text}: {name} is no file")
        found[mesh] = (*found.get(mesh, ()), Path(name))
    return found
