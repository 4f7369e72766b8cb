"""Define the keys of a scenario: each with its type, unit, bounds, default and meaning.

The keys of a file have no units (`think_time: 100ms`), the attributes do (`think_time_s`, a float). Schema, reference
page and error messages are made from these models.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import (
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from bench.application.definition import (
    ApplicationDefinition,
    ApplicationKeys,
    Ready,
    find_application,
    list_shipped_applications,
)
from bench.application.rendering import render
from bench.files.validation import IMAGE_PATTERN, LINE_PATTERN, TEXT_PATTERN
from bench.files.yaml_source import Loc
from bench.scenario.load_settings import Options, Tag, Variables
from bench.scenario.placement import Placement
from bench.scenario.probes import ScenarioProbe
from bench.scenario.renames import rename_keys
from bench.scenario.types import (
    SCHEMA_VERSION,
    ApplicationName,
    Design,
    LocustFile,
    ManifestFolder,
    Margin,
    Mesh,
    Name,
    Rate,
    Repeats,
    Section,
    Seed,
    Source,
    ThinkTime,
    Users,
    Version,
    WarmUp,
    Window,
    find_application_folder,
    find_manifests,
)
from bench.scenario.versions import (
    DEFAULT_APPLICATION,
    check_versions,
    default_versions,
    describe_versions,
    explain_own_image,
    reject_unknown_images,
)
from bench.units import format_duration

Names = tuple[str, str]  # a configuration and its reference
FieldPath = tuple[int | str, ...]


def reject_idle_pairs(pairs: Sequence[Names], *, known: Sequence[str], reference: str | None) -> None:
    """Raise ValidationError for pairs of unknown names, of a configuration with itself, and those compared anyway."""
    details = [
        InitErrorDetails(type=PydanticCustomError("value_error", "{error}", {"error": text}), loc=path, input=pairs)
        for path, text in _find_pair_problems(pairs, known, reference)
    ]
    if details:
        raise ValidationError.from_exception_data("contrasts", details)


def _find_pair_problems(
    pairs: Sequence[Names], known: Sequence[str], reference: str | None
) -> Iterator[tuple[FieldPath, str]]:
    """Yield path and message for each invalid pair; a pair is the same in either direction."""
    seen: dict[frozenset[str], int] = {}
    for number, names in enumerate(pairs):
        both = frozenset(names)
        if not both <= set(known):
            yield from _find_unknown_names(number, names, known)
        elif len(both) < 2:
            yield (number, "reference"), f"{names[0]} would be compared with itself; name another configuration"
        elif both in seen:
            yield (number,), f"contrasts[{seen[both]}] already compares these two; leave one of them out"
        elif reference in both:
            yield (number,), f"every configuration is compared with the reference {reference} anyway; leave it out"
        seen.setdefault(both, number)


def _find_unknown_names(number: int, names: Names, known: Sequence[str]) -> Iterator[tuple[FieldPath, str]]:
    for side, name in zip(("configuration", "reference"), names, strict=True):
        if name not in known:
            yield (number, side), f"{name} is not a configuration (configurations: {', '.join(known)})"


Image = Annotated[str, Field(pattern=IMAGE_PATTERN, max_length=300)]
Equal = Literal["tls", "workers", "retries"]

STORED_APPLICATION: Final = "application"  # the folder of a run that has the application's own manifests

PAIRED: Final[tuple[Design, ...]] = ("duet", "interleaved")
SHORTEST_WINDOW_S: Final = 5.0  # shorter ones have too few requests for a P95
QUICK_WARMUP_S: Final = 5.0
QUICK_WINDOW_S: Final = 15.0
QUICK_BLOCKS: Final = 8


class Application(ApplicationKeys):
    """The application under test: the name of one that ships, or yours, by these keys or as the path of an
    `application.yaml` that has them. One beside the scenario, or in the folder of its name, is read anyway."""

    model_config = ConfigDict(allow_inf_nan=False)

    name: ApplicationName = Field(DEFAULT_APPLICATION, description="Name in ids, namespaces and reports.")
    versions: dict[str, str | tuple[str, ...]] = Field(
        {},
        validate_default=True,
        json_schema_extra=describe_versions,
        description="Version of each service of an application that ships and has several, the same in every"
        " configuration. With a list of versions, every configuration needs routes that send each user to one of them.",
    )
    images: dict[str, Image] = Field(
        {},
        max_length=100,
        description="Images that replace those of the manifests on a cluster, by service. The application's name means"
        " all its services, `load` is Locust, `gateway` is the proxy of a delegated gateway. Ignored on one machine.",
    )

    @model_validator(mode="before")
    @classmethod
    def _name_manifests(cls, data: Any, info: ValidationInfo) -> Any:
        """Name the folder of an application that does not ship, where the file does not: that of its name."""
        if not isinstance(data, dict) or not isinstance(info.context, Source):
            return data
        name = data.get("name", DEFAULT_APPLICATION)
        if "manifests" in data or not isinstance(name, str) or name in list_shipped_applications():
            return data
        return {**data, "manifests": name}

    @field_validator("manifests")
    @classmethod
    def _check_manifests(cls, manifests: str | None, info: ValidationInfo) -> str | None:
        if manifests is not None and isinstance(info.context, Source):
            if info.data.get("name") in list_shipped_applications():
                raise ValueError(f"the name {info.data['name']} is that of an application that ships; choose another")
            find_application_folder(manifests, info.context.folder)
        return manifests

    @field_validator("ready")
    @classmethod
    def _complete_ready(cls, ready: Ready | None, info: ValidationInfo) -> Ready | None:
        """Keep of an application that ships what a file does not give, such as the check of its answers."""
        name = info.data.get("name")
        if ready is None or not isinstance(info.context, Source) or name not in list_shipped_applications():
            return ready
        own = {key: getattr(ready, key) for key in ready.model_fields_set}
        return find_application(name).ready.model_copy(update=own)

    @field_validator("versions", mode="before")
    @classmethod
    def _check_versions(cls, versions: object, info: ValidationInfo) -> object:
        """Check the versions of a file against the application, and add the default ones. Those of a stored run are
        what it measured, whatever the application has today."""
        name = info.data.get("name")
        if not isinstance(versions, dict) or name not in list_shipped_applications():
            if versions and isinstance(info.context, Source):
                raise ValueError("are of applications that ship; yours is deployed as its manifests have it")
            return versions
        if isinstance(info.context, Source):
            return check_versions(versions, find_application(name))
        return {**default_versions(find_application(name)), **versions}

    @model_validator(mode="after")
    def _check_images(self, info: ValidationInfo) -> Self:
        if self.images and isinstance(info.context, Source):
            reject_unknown_images(self.images, self.find_definition(info.context.folder))
        return self

    @property
    def definition(self) -> ApplicationDefinition:
        """The application's definition: that of one that ships with the scenario's own keys, or made of these alone.
        Where its manifests are, is not known; see `find_definition`."""
        given = {key: value for key in ApplicationKeys.model_fields if (value := getattr(self, key)) is not None}
        if self.manifests is not None:
            return ApplicationDefinition(**given)
        return find_application(self.name).model_copy(update=given)

    def find_definition(self, folder: Path) -> ApplicationDefinition:
        """Return the definition with the manifests of a scenario in this folder."""
        if self.manifests is None:
            return self.definition
        return self.definition.place(render(folder / self.manifests).folder)

    def find_stored_definition(self, run: Path) -> ApplicationDefinition:
        """Return the definition with the manifests that a run's folder has."""
        return self.definition if self.manifests is None else self.definition.place(run / STORED_APPLICATION)


class Load(Section):
    """The load on every configuration."""

    users: Users = Field(
        20, description="Number of concurrent users. With `rate`: the most requests in flight at once."
    )
    users_each: Users | None = Field(
        None, description="Users of each configuration in a duet, in place of an equal share of `users`."
    )
    think_time_s: ThinkTime = Field(
        0.1,
        alias="think_time",
        description="Pause of a user after each response (closed loop). Ignored with `rate`.",
    )
    rate_per_s: Rate | None = Field(
        None,
        alias="rate",
        description="Arrival rate of requests, independent of responses (open loop). Without it, each user waits for"
        " the response (closed loop).",
    )
    warmup_s: WarmUp = Field(
        30.0, alias="warmup", description="Load before the window: recorded, but not part of the result."
    )
    duration_s: Window = Field(
        120.0,
        alias="duration",
        description="Length of the window, whose samples count. At least as long as the warm-up.",
    )
    workers: Annotated[int, Field(strict=True, ge=1, le=64)] = Field(
        1, description="Number of Locust worker processes that share the users. 1 is Locust without workers."
    )
    locustfile: LocustFile = Field(
        DEFAULT_APPLICATION,
        description="A Locust file: the name of a shipped one, or of one in the folder of the scenario file. The files"
        " of its folder travel with it. Default: that of the application's name.",
    )
    options: Options = Field({}, description="Values of the Locust file's own command-line options, by name.")
    env: Variables = Field(
        {},
        description="Variables of Locust's environment: text, or where a run reads the value when it starts, `{env:"
        " NAME}` or `{file: PATH}`. Such a value is recorded nowhere.",
    )
    tags: Annotated[tuple[Tag, ...], Field(max_length=100)] = Field(
        (), description="Only tasks with one of these tags are run, as by Locust's `--tags`."
    )
    exclude_tags: Annotated[tuple[Tag, ...], Field(max_length=100)] = Field(
        (), description="Tasks with one of these tags are not run, as by Locust's `--exclude-tags`."
    )

    @field_validator("duration_s")
    @classmethod
    def _check_length(cls, duration_s: float, info: ValidationInfo) -> float:
        _reject_short_window(duration_s, info.data.get("warmup_s", 0.0))
        return duration_s

    @model_validator(mode="after")
    def _check_default_length(self) -> Self:
        _reject_short_window(self.duration_s, self.warmup_s)
        return self


def _reject_short_window(duration_s: float, warmup_s: float) -> None:
    if duration_s < warmup_s:
        raise ValueError(
            f"the window ({format_duration(duration_s)}) is shorter than the warm-up ({format_duration(warmup_s)});"
            " use a longer window or a shorter warm-up"
        )


class LoadOverride(Section):
    """Changes to the load for one configuration."""

    users: Users | None = Field(None, description="Users of this configuration.")
    think_time_s: ThinkTime | None = Field(
        None, alias="think_time", description="Pause after each response in this configuration."
    )
    rate_per_s: Rate | None = Field(None, alias="rate", description="Arrival rate of this configuration (open loop).")


class Configuration(Section):
    """One state of the system under test: a mesh, or none, and its policies."""

    name: Name = Field(description="Name in folders, tables and figures. Unique in the scenario.")
    mesh: Mesh = Field(description="The service mesh, or none.")
    manifests: tuple[ManifestFolder, ...] = Field(
        (),
        max_length=20,
        description="Folders to apply, below the shipped manifests or in the folder of the scenario file: policies of"
        " the mesh, and on a cluster objects that replace the application's of the same kind and name, or are added.",
    )
    images: dict[str, Image] = Field(
        {},
        max_length=100,
        description="Images of this configuration alone, on a cluster only: as `application.images`, over which they"
        " win, as over `--image`; `sidecar` is the mesh's proxy, and `load` is the same for all.",
    )
    load: LoadOverride | None = Field(None, description="Changes to the load for this configuration.")
    probes: Annotated[tuple[ScenarioProbe, ...], Field(max_length=100)] = Field(
        (), description="Requests that prove this configuration, in addition to those of the scenario."
    )

    @field_validator("manifests")
    @classmethod
    def _check_overlap(cls, manifests: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        """Reject a folder inside another: a folder is applied with everything below it, so that it would be applied
        twice."""
        folder = info.context.folder if isinstance(info.context, Source) else None
        for outer, inner in permutations(manifests if folder else (), 2):
            if inner == outer:
                raise ValueError(f"{inner} is named twice")
            inner_path, outer_path = (Path(os.path.realpath(find_manifests(name, folder))) for name in (inner, outer))
            if inner_path.is_relative_to(outer_path):
                raise ValueError(f"{inner} is inside {outer}, which is applied as a whole; name one of them")
        return manifests


def reject_own_images(configurations: Sequence[Configuration], definition: ApplicationDefinition) -> None:
    """Raise ValidationError with each name of a configuration's `images` that it cannot have."""
    details = [
        InitErrorDetails(
            type=PydanticCustomError("value_error", "{error}", {"error": text}), loc=(index, "images", name), input=name
        )
        for index, one in enumerate(configurations)
        for name in one.images
        if (text := explain_own_image(name, one.mesh, definition))
    ]
    if details:
        raise ValidationError.from_exception_data("configurations", details)


class Pair(Section):
    """A pair of configurations to compare, in addition to the comparisons with `reference`."""

    configuration: Name = Field(description="The configuration whose difference is reported.")
    reference: Name = Field(description="The configuration that it is compared with.")


class Scenario(Section):
    """A comparison to measure: one application under one load, in several configurations."""

    schema_version: Version = Field(SCHEMA_VERSION, description="Version of this format.")
    name: Name = Field(description="Name of the scenario. Part of the id of each run.")
    title: Annotated[str, Field(pattern=LINE_PATTERN, max_length=120)] = Field(
        description="Heading of the report, one line."
    )
    description: Annotated[str, Field(pattern=TEXT_PATTERN, max_length=4000)] = Field(
        "", description="What the scenario compares, and why."
    )
    application: Application = Field(default_factory=Application, description="The application under test.")
    load: Load = Field(default_factory=Load, description="The load on every configuration.")
    repeats: Repeats = Field(
        3, description="How often each configuration is deployed and measured. 1 gives no interval."
    )
    rerun_invalid: Annotated[bool, Strict()] = Field(
        True,
        description="Rerun a block, at the end, if one of its trials was invalid for a retryable reason, such as a"
        " restart or an unsteady window; the first one is kept, and no mean includes it. In a duet or interleaved"
        " run at most one block in four, and not because of latencies; not with `quick` in a sequential run. The old"
        " name `again` is deprecated.",
    )
    seed: Seed | None = Field(None, description="Seed of the order of trials. Without it, each run draws its own.")
    quick: Annotated[bool, Strict()] = Field(
        False,
        description=f"Shorten the warm-up to {format_duration(QUICK_WARMUP_S)} and the window to"
        f" {format_duration(QUICK_WINDOW_S)}, for a first answer: where possible a duet of at least"
        f" {QUICK_BLOCKS} blocks. The report is labelled QUICK.",
    )
    isolation: Literal["shared", "full"] = Field(
        "shared",
        description="On a cluster: `shared` installs each control plane once and keeps it for all trials; `full`"
        " installs a control plane only for the trials of its own mesh.",
    )
    configurations: Annotated[tuple[Configuration, ...], Field(min_length=1, max_length=50)] = Field(
        description="The configurations to compare, in an order that `design` decides."
    )
    reference: Name | None = Field(
        None,
        description="The configuration that the others are compared with. null for no comparison.",
    )
    design: Design | None = Field(
        None,
        description="How the configurations of a block share its time. `duet`: all are deployed, and loaded at once."
        " `interleaved`: all are deployed, and loaded in turn. `sequential`: each is deployed and loaded alone."
        " Default: `duet` with `quick`, else `interleaved`; `sequential` without a reference, or with a load for each"
        " configuration.",
    )
    contrasts: Annotated[tuple[Pair, ...], Field(max_length=50)] = Field(
        (),
        description="More pairs to compare, in addition to the comparisons with `reference`. They are planned before"
        " the run, so that the report gives each of them a verdict.",
    )
    equalise: Annotated[tuple[Equal, ...], Field(max_length=len(get_args(Equal)))] = Field(
        (),
        description="Settings that get the same value in all meshes, instead of each mesh's default: `tls` (version"
        " 1.3; Envoy chooses cipher and curve), `workers` (two threads in each sidecar), `retries` (none between"
        " sidecars).",
    )
    probes: Annotated[tuple[ScenarioProbe, ...], Field(max_length=100)] = Field(
        (),
        description="Requests that prove every configuration, in addition to those that meshbench derives from"
        " policies which it understands.",
    )
    placement: Placement = Field(
        default_factory=Placement,
        description="On a cluster: nodes of the pods, and settings of the run's namespaces. Ignored on one machine.",
    )
    margin: Margin = Field(
        0.1, description="The smallest change in P95 that matters. Two configurations within it are equivalent."
    )

    @model_validator(mode="before")
    @classmethod
    def _rename_keys(cls, data: Any) -> Any:
        """Rename old keys, which stored runs have."""
        return rename_keys(data)

    @field_validator("configurations")
    @classmethod
    def _check_names(cls, configurations: tuple[Configuration, ...]) -> tuple[Configuration, ...]:
        names = [configuration.name for configuration in configurations]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"names must be unique; given more than once: {', '.join(twice)}")
        return configurations

    @field_validator("configurations")
    @classmethod
    def _check_own_images(
        cls, configurations: tuple[Configuration, ...], info: ValidationInfo
    ) -> tuple[Configuration, ...]:
        """Check the names of a file's images against the application and the mesh."""
        application = info.data.get("application")
        if application is not None and isinstance(info.context, Source):
            reject_own_images(configurations, application.find_definition(info.context.folder))
        return configurations

    @field_validator("reference")
    @classmethod
    def _check_reference(cls, reference: str | None, info: ValidationInfo) -> str | None:
        known = _list_known_names(info)
        if reference is not None and reference not in known:
            raise ValueError(f"{reference} is not a configuration (configurations: {', '.join(known)})")
        return reference

    @field_validator("design")
    @classmethod
    def _check_design(cls, design: Design | None, info: ValidationInfo) -> Design | None:
        """Check that configurations can share a block, where a file asks for it."""
        if design in PAIRED and isinstance(info.context, Source):
            for obstacle in _list_obstacles(info.data, design):
                raise ValueError(f"cannot be {design}: {obstacle}; or leave `design` out")
        return design

    @field_validator("contrasts")
    @classmethod
    def _check_contrasts(cls, contrasts: tuple[Pair, ...], info: ValidationInfo) -> tuple[Pair, ...]:
        pairs = [(pair.configuration, pair.reference) for pair in contrasts]
        reject_idle_pairs(pairs, known=_list_known_names(info), reference=info.data.get("reference"))
        return contrasts

    @field_validator("equalise")
    @classmethod
    def _check_equalise(cls, equalise: tuple[Equal, ...], info: ValidationInfo) -> tuple[Equal, ...]:
        if len(set(equalise)) < len(equalise):
            raise ValueError(f"each setting may be named once: {', '.join(equalise)}")
        known = info.data.get("configurations")
        if equalise and known and all(configuration.mesh == "none" for configuration in known):
            raise ValueError("has no effect, since no configuration has a mesh; leave it out")
        return equalise

    def configuration(self, name: str) -> Configuration:
        """Return the configuration of that name. Raises KeyError where there is none."""
        return {configuration.name: configuration for configuration in self.configurations}[name]

    def list_secret_files(self) -> tuple[Path, ...]:
        """Return the files that variables of Locust and headers of probes are read from when a run starts."""
        headers = (one for _, probe in self._list_probes() for one in probe.headers.values())
        return tuple(Path(one.file) for one in (*self.load.env.values(), *headers) if one.file)

    def list_unreadable_headers(self) -> tuple[tuple[Loc, str], ...]:
        """Return each header of a probe whose value cannot be read, with its path, and why."""
        return tuple(
            ((*loc, *place), why)
            for loc, probe in self._list_probes()
            for place, why in probe.list_unreadable_headers()
        )

    def _list_probes(self) -> Iterator[tuple[Loc, ScenarioProbe]]:
        for number, probe in enumerate(self.probes):
            yield ("probes", number), probe
        for index, configuration in enumerate(self.configurations):
            for number, probe in enumerate(configuration.probes):
                yield ("configurations", index, "probes", number), probe

    def load_of(self, configuration: str) -> Load:
        """Return the load on one configuration: the scenario's, with the configuration's changes."""
        override = self.configuration(configuration).load
        if override:
            return self.load.model_copy(update=override.model_dump(exclude_none=True))
        return self._share_load() if self.design == "duet" else self.load

    def _share_load(self) -> Load:
        """Return the load of each configuration in a duet: an equal share of the block's users and arrivals."""
        count, load = len(self.configurations), self.load
        rate_per_s = None if load.rate_per_s is None else load.rate_per_s / count
        return load.model_copy(update={"users": self.users_in_duet, "rate_per_s": rate_per_s})

    @property
    def users_in_duet(self) -> int:
        """The users of each configuration where those of the load are shared out."""
        return self.load.users_each or self.load.users // len(self.configurations)

    @property
    def is_paired(self) -> bool:
        """Whether the configurations of a block are deployed together, so that they share its noise."""
        return self.design in PAIRED

    def list_obstacles(self, design: Design) -> tuple[str, ...]:
        """Return why the configurations cannot share a block in this way, each with what to change."""
        return tuple(_list_obstacles(dict(self), design))

    @property
    def reruns_invalid(self) -> bool:
        """Whether invalid blocks are rerun."""
        return self.rerun_invalid and (self.is_paired or not self.quick)


def _list_obstacles(data: Mapping[str, Any], design: Design) -> Iterator[str]:
    """Yield why a scenario with these fields cannot have a design in which configurations share a block."""
    configurations: tuple[Configuration, ...] = data.get("configurations", ())
    if "reference" in data and data["reference"] is None:
        yield "there is no reference to compare with; name one"
    if len(configurations) == 1:
        yield "there is one configuration; name a second one"
    own = [configuration.name for configuration in configurations if configuration.load]
    if own:
        yield f"{', '.join(own)} have a load of their own; give all the same load"
    if data.get("isolation") == "full":
        yield "with `isolation: full` no other mesh may be there; use `isolation: shared`"
    if design == "interleaved" and "load" in data and data["load"].duration_s < 2 * SHORTEST_WINDOW_S:
        shortest, needed = format_duration(SHORTEST_WINDOW_S), format_duration(2 * SHORTEST_WINDOW_S)
        yield f"the load is divided into windows of at least {shortest}; use a duration of {needed} or more"


def _list_known_names(info: ValidationInfo) -> tuple[str, ...]:
    """Return the configurations' names, also where one of them is invalid otherwise."""
    known = tuple(configuration.name for configuration in info.data.get("configurations", ()))
    return info.context.names if not known and isinstance(info.context, Source) else known
