"""What the user wants of a cluster: flags and scenario together, or the record of the run that is resumed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bench.errors import InputError
from bench.meshes.equalise import refuse_unequal
from bench.results.records import RunRecord
from bench.scenario.model import WORKLOADS, Scenario
from bench.targets.cluster.flags import ClusterFlags
from bench.targets.cluster.prometheus import check_place, without_password

VALUES: Final = "values"  # the folder of a run that keeps the meshes' values files


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """Checked flags. `images` by workload, as `images.image_of` reads them, `mesh_values` by mesh, on top of ours;
    `load_node` is where the load was, of a run that goes on."""

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
    load_node: str = ""


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
    if flags.prometheus:
        check_place(flags.prometheus)
    refuse_unequal(scenario, existing_mesh=flags.use_existing_mesh)
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
    """The options that a run was begun with; who agrees, what stays and what is shown is said anew. Raises InputError
    where the run was not on a cluster, and for flags that say something else than its beginning."""
    asked = read_options(flags, record.scenario)
    stored = record.cluster
    if stored is None:
        raise InputError(f"{run}: was measured on one machine; resume it without --context")
    begun = replace(
        asked,
        images=stored.images,
        registry=stored.registry,
        mesh_values={mesh: tuple(run / VALUES / name for name in names) for mesh, names in stored.mesh_values.items()},
        hub=stored.hub,
        tag=stored.tag,
        revision=stored.revision,
        existing_mesh=stored.existing_mesh,
        prometheus=_same_prometheus(asked.prometheus, stored.prometheus),
        load_node=stored.load_node,
    )
    if others := list(_contradictions(flags, asked, begun)):
        was = "; ".join(f"{flag} (begun with {was or 'none'})" for flag, was in others)
        raise InputError(f"{run}: a run is resumed as it was begun, so leave out, or start a new run: {was}")
    return begun


def _contradictions(flags: ClusterFlags, asked: ClusterOptions, begun: ClusterOptions) -> Iterator[tuple[str, str]]:
    """The flags that were given and say something else than the run's beginning, with what that was."""
    for name, image in dict(map(_image, flags.image)).items():
        if begun.images.get(name) != image:
            yield f"--image {name}={image}", begun.images.get(name, "")
    for flag, given, was in (
        ("--registry", asked.registry, begun.registry),
        ("--mesh-hub", asked.hub, begun.hub),
        ("--mesh-tag", asked.tag, begun.tag),
        ("--mesh-revision", asked.revision, begun.revision),
        ("--prometheus", without_password(asked.prometheus), without_password(begun.prometheus)),
    ):
        if given and given != was:
            yield f"{flag} {given}", was
    if asked.existing_mesh and not begun.existing_mesh:
        yield "--use-existing-mesh", "one of its own"
    if asked.mesh_values and _contents(asked) != _contents(begun):
        yield "--mesh-values", ", ".join(file.name for files in begun.mesh_values.values() for file in files)


def _same_prometheus(given: str, stored: str) -> str:
    """Where the run's beginning is given again, it is taken as it is given: the record has no password."""
    return given if without_password(given) == stored else stored


def _contents(options: ClusterOptions) -> dict[str, list[bytes]]:
    return {mesh: [file.read_bytes() for file in files] for mesh, files in options.mesh_values.items()}


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
