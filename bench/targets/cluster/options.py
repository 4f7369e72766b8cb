"""The user's options for a cluster: flags and scenario together, or the record of the run that is resumed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from bench.application.definition import ApplicationDefinition
from bench.errors import InputError
from bench.meshes import MESHES
from bench.meshes.control_planes import CONTROL_PLANES
from bench.meshes.equalise import reject_unequal
from bench.results.records import RunRecord
from bench.scenario.model import Scenario
from bench.scenario.placement import Placement
from bench.scenario.versions import SIDECAR, list_image_names
from bench.system.private_files import PrivateFolder, read_index
from bench.targets.cluster.flags import CLUSTER_FLAGS, Given
from bench.targets.cluster.prometheus import check_address, without_password
from bench.units import parse_percent

VALUES: Final = "values"  # the private folder of the meshes' values files
_STORED: Final = ("images", "existing_mesh", "scale_requests", "load_node")  # by the same names there, too
_SMALLEST_SCALE: Final = 0.01
RECORDED: Final = ("registry", "hub", "tag", "revision", "load_selector")  # by the same names in a run's record


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """Checked flags. `images` are by workload, as `image_of` reads them; `mesh_values` by mesh, on top of ours;
    `scale_requests` is the share of their requests that pods have; `placement` is the scenario's, with the load on
    nodes with the label `load_selector`; `load_node` is the node of the load, of a run that is `resumed`, whose design
    stays as well."""

    context: str
    yes_this_cluster: str | None = None
    agreed: bool = False
    images: Mapping[str, str] = field(default_factory=dict)
    registry: str = ""
    mesh_values: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    hub: str = ""
    tag: str = ""
    revision: str = ""
    existing_mesh: bool = False
    scale_requests: float = 1.0
    keep: bool = False
    locust_ui: int | None = None
    prometheus: str = ""
    load_selector: str = ""
    placement: Placement = field(default_factory=Placement)
    load_node: str = ""
    resumed: bool = False


def meshes_of(scenario: Scenario) -> tuple[str, ...]:
    """Return the meshes that a scenario needs, in the order of their names."""
    return tuple(sorted({one.mesh for one in scenario.configurations if one.mesh != "none"}))


def find_meshes_with_images(scenario: Scenario) -> tuple[str, ...]:
    """Return the meshes whose sidecars get an image of their own in some configuration."""
    return tuple(sorted({one.mesh for one in scenario.configurations if SIDECAR in one.images}))


def _reject_fixed_sidecars(scenario: Scenario) -> None:
    """Raise InputError for an image of sidecars in a mesh that can set it for all of them only."""
    for mesh in find_meshes_with_images(scenario):
        if CONTROL_PLANES[mesh].sidecar_image("image", "owner") is None:
            named = ", ".join(one.name for one in scenario.configurations if one.mesh == mesh and SIDECAR in one.images)
            raise InputError(
                f"{named}: images.sidecar: {mesh} cannot set the image of single sidecars; hint: leave it out, and give"
                f" all of them another by --mesh-values {mesh}=FILE"
            )


def read_options(given: Given, scenario: Scenario, definition: ApplicationDefinition | None = None) -> ClusterOptions:
    """Return the options of a new run, checked against its scenario and its application's `definition`, by default that
    of one that ships. Raises InputError."""
    meshes, named = meshes_of(scenario), given.get("images", ())
    images = {
        **scenario.application.images,
        **dict(_parse_images(named, definition or scenario.application.definition)),
    }
    mesh_values = _parse_values(given.get("mesh_values", ()), meshes)
    scale = _parse_scale(given.get("scale_requests", ""))
    checked = {"images": images, "mesh_values": mesh_values, "scale_requests": scale}
    placement = _place(scenario, given.get("load_selector", ""))
    options = ClusterOptions(**{**given, **checked, "placement": placement})
    if options.revision and not any(CONTROL_PLANES[mesh].REVISIONS for mesh in meshes):
        raise InputError("--mesh-revision: no mesh of this scenario has revisions; hint: leave it out")
    if (options.hub or options.tag) and len(meshes) > 1:
        raise InputError(
            "--mesh-hub and --mesh-tag would mean both meshes; hint: give their images by --mesh-values MESH=FILE"
        )
    if options.prometheus:
        check_address(options.prometheus)
    _reject_fixed_sidecars(scenario)
    reject_unequal(scenario, MESHES, existing_mesh=options.existing_mesh)
    return options


def read_resumed_options(given: Given, record: RunRecord, run: Path) -> ClusterOptions:
    """Return the options that a run was begun with; consent, `--keep` and `--locust-ui` are those of the new command.
    Raises InputError where the run was not on a cluster, and for flags that contradict its beginning."""
    requested = read_options(given, record.scenario, record.scenario.application.find_stored_definition(run))
    stored = record.cluster
    if stored is None:
        raise InputError(f"{run}: was measured on one machine; hint: resume it without --context")
    values = _find_values(run)
    begun = replace(
        requested,
        **{name: getattr(stored, name) for name in (*RECORDED, *_STORED)},
        mesh_values={mesh: tuple(values / name for name in names) for mesh, names in stored.mesh_values.items()},
        prometheus=_choose_prometheus(requested.prometheus, stored.prometheus),
        placement=_place(record.scenario, stored.load_selector),
        resumed=True,
    )
    if others := list(_find_contradictions(given, requested, begun)):
        was = "; ".join(f"{flag} (begun with {was or 'none'})" for flag, was in others)
        raise InputError(
            f"{run}: a run is resumed with the options that it was begun with; "
            f"hint: leave out, or start a new run: {was}"
        )
    return begun


def _find_values(run: Path) -> Path:
    """Return the folder with the meshes' values files: runs of older versions have it in their own."""
    index = read_index(run)
    return (PrivateFolder.of_run(run, index.run_id).path if index and index.select(VALUES) else run) / VALUES


def _find_contradictions(given: Given, requested: ClusterOptions, begun: ClusterOptions) -> Iterator[tuple[str, str]]:
    """Yield the flags that contradict the run's beginning, with what that was."""
    for name, _, image in (text.partition("=") for text in given.get("images", ())):  # as `read_options` read them
        if begun.images.get(name) != image:
            yield f"--image {name}={image}", begun.images.get(name, "")
    for name in (*RECORDED, "prometheus"):
        show = without_password if name == "prometheus" else str
        wanted, was = show(getattr(requested, name)), show(getattr(begun, name))
        if wanted and wanted != was:
            yield f"{CLUSTER_FLAGS[name].text} {wanted}", was
    if given.get("scale_requests") and requested.scale_requests != begun.scale_requests:
        yield f"{CLUSTER_FLAGS['scale_requests'].text} {given['scale_requests']}", f"{begun.scale_requests * 100:g}%"
    if requested.existing_mesh and not begun.existing_mesh:
        yield "--use-existing-mesh", "one of its own"
    if requested.mesh_values and _read_contents(requested) != _read_contents(begun):
        yield "--mesh-values", ", ".join(file.name for files in begun.mesh_values.values() for file in files)


def _choose_prometheus(given: str, stored: str) -> str:
    """Return the given address where it is the stored one, since the record has no password; else the stored one."""
    return given if without_password(given) == stored else stored


def _read_contents(options: ClusterOptions) -> dict[str, list[bytes]]:
    return {mesh: [file.read_bytes() for file in files] for mesh, files in options.mesh_values.items()}


def _place(scenario: Scenario, load_selector: str) -> Placement:
    """Return the scenario's placement with the load on nodes with this label. Raises InputError."""
    try:
        return scenario.placement.load_on(load_selector)
    except ValueError as error:
        raise InputError(f"{CLUSTER_FLAGS['load_selector'].text} {load_selector}: {error}") from None


def _parse_scale(text: str) -> float:
    """Parse `--scale-requests`; all of the requests where it is not given."""
    flag = CLUSTER_FLAGS["scale_requests"].text
    try:
        share = parse_percent(text) if text else 1.0
    except ValueError as error:
        raise InputError(f"{flag}: {error}") from None
    if not _SMALLEST_SCALE <= share <= 1.0:
        raise InputError(f"{flag} {text}: must be from {_SMALLEST_SCALE * 100:g}% to 100%")
    return share


def _parse_images(given: Sequence[str], definition: ApplicationDefinition) -> Iterator[tuple[str, str]]:
    known = list_image_names(definition) if given else ()
    for text in given:
        name, _, reference = text.partition("=")
        if name not in known or not reference:
            raise InputError(f"--image {text}: write NAME=REF, with NAME one of {', '.join(known)}")
        yield name, reference


def _parse_values(given: tuple[str, ...], meshes: tuple[str, ...]) -> dict[str, tuple[Path, ...]]:
    """Parse `--mesh-values`, by mesh; without a mesh's name the scenario's only one is meant."""
    files: dict[str, tuple[Path, ...]] = {}
    for text in given:
        mesh, _, name = text.rpartition("=")
        known = " and ".join(meshes) or "no mesh"
        if not mesh and len(meshes) != 1:
            raise InputError(f"--mesh-values {text}: this scenario has {known}; write MESH=FILE")
        mesh = mesh or meshes[0]
        if mesh not in meshes:
            raise InputError(f"--mesh-values {text}: this scenario has {known}, not {mesh}")
        if not Path(name).is_file():
            raise InputError(f"--mesh-values {text}: {name} is not a file")
        files[mesh] = (*files.get(mesh, ()), Path(name))
    return files
