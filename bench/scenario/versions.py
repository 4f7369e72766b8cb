"""Check what a scenario says of its application, against the application's definition."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from bench.application.definition import (
    ApplicationDefinition,
    Versions,
    find_application,
    list_shipped_applications,
)
from bench.application.objects import list_apps
from bench.files.validation import explain_choice, format_value
from bench.files.yaml_source import format_suggestion

DEFAULT_APPLICATION: Final = list_shipped_applications()[0]
LOAD: Final = "load"  # the name of Locust's image
_GATEWAY: Final = "gateway"  # the name of the image of a gateway's proxy
SIDECAR: Final = "sidecar"  # the name of the image of a mesh's proxy next to each workload


def check_versions(given: Mapping[str, Any], definition: ApplicationDefinition) -> dict[str, Any]:
    """Return the version of each service that has several, or the list of those that are deployed: those given, else
    the default. Raises ValidationError with the problem of each service."""
    details = [
        InitErrorDetails(type=PydanticCustomError("value_error", "{error}", {"error": text}), loc=(app,), input=value)
        for app, value in given.items()
        for text in _find_problems(app, value, definition)
    ]
    if details:
        raise ValidationError.from_exception_data("versions", details)
    return {**default_versions(definition), **given}


def default_versions(definition: ApplicationDefinition) -> dict[str, Any]:
    """Return the default version of each service that has several."""
    return {app: known.default for app, known in definition.versions.items()}


def _find_problems(app: str, value: object, definition: ApplicationDefinition) -> Iterator[str]:
    known = definition.versions.get(app)
    if known is None:
        yield f"is no service with several versions{format_suggestion(app, definition.versions)}"
        return
    several = value if isinstance(value, list | tuple) else (value,)
    unknown = [one for one in several if one not in known.choices]
    if unknown:
        yield explain_choice(unknown[0], known.choices)
    elif len(set(several)) < max(len(several), 1):
        yield "must name at least one version, and each once"


def list_image_names(definition: ApplicationDefinition) -> tuple[str, ...]:
    """Return the names that `images` may have."""
    return (definition.name, *list_apps(definition), LOAD, _GATEWAY)


def reject_unknown_images(images: Mapping[str, str], definition: ApplicationDefinition) -> None:
    """Raise ValidationError with each name of `images` that is none of the application's."""
    known = list_image_names(definition)
    unknown = {name: f"{format_value(name)} has no image{format_suggestion(name, known)}" for name in images}
    details = [
        InitErrorDetails(
            type=PydanticCustomError("value_error", "{error}", {"error": text}), loc=("images", name), input=name
        )
        for name, text in unknown.items()
        if name not in known
    ]
    if details:
        raise ValidationError.from_exception_data("application", details)


def list_own_image_names(definition: ApplicationDefinition) -> tuple[str, ...]:
    """Return the names that `images` of a single configuration may have: all but the load's, which has to be the same
    for all, and the mesh's proxy."""
    return (*(name for name in list_image_names(definition) if name != LOAD), SIDECAR)


def explain_own_image(name: str, mesh: str, definition: ApplicationDefinition) -> str:
    """Return what is wrong with a name of `images` in a configuration with this mesh; empty for a valid one."""
    known = list_own_image_names(definition)
    if name == LOAD:
        return "the load is the same for all configurations; set application.images.load"
    if name not in known:
        return f"{format_value(name)} has no image{format_suggestion(name, known)}"
    return "needs a mesh, whose proxy it replaces" if name == SIDECAR and mesh == "none" else ""


def override_images(run: Mapping[str, str], own: Mapping[str, str], application: str) -> dict[str, str]:
    """Return the images of a configuration with images of its `own`, which win over those of the whole `run`. Where it
    has one for all services of the `application`, none of the run's is left for a single one."""
    kept = (LOAD, _GATEWAY) if application in own else tuple(run)
    return {**{name: image for name, image in run.items() if name in kept}, **own}


def describe_versions(schema: dict[str, Any]) -> None:
    """Add the versions of every shipped application to the JSON Schema of `versions`."""
    schema["properties"] = {app: _describe_choices(known) for app, known in list_versioned_services().items()}
    schema["additionalProperties"] = False
    schema["default"] = {app: known.default for app, known in list_versioned_services().items()}


def _describe_choices(known: Versions) -> dict[str, Any]:
    one = {"enum": list(known.choices), "type": "string"}
    several = {"type": "array", "items": one, "minItems": 1, "uniqueItems": True}
    return {"anyOf": [one, several]}


@cache
def list_versioned_services() -> Mapping[str, Versions]:
    """Return the services with several versions of all applications that ship."""
    known = [find_application(name).versions for name in list_shipped_applications()]
    return {app: versions for one in known for app, versions in one.items()}
