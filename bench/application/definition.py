"""Define what an application is, as its `application.yaml` says: read once, frozen, checked with file and line."""

import importlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Protocol, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from bench.errors import InputError, Problem
from bench.files.folders import DEFINITION, find_shipped, list_manifest_files
from bench.files.validation import (
    ENDPOINT_PATTERN,
    ENTRY_PATTERN,
    LABEL_PATTERN,
    MODULE_PATTERN,
    NAME_PATTERN,
    PATH_PATTERN,
    list_invalid_fields,
)
from bench.files.yaml_source import format_suggestion, read_documents
from bench.units import parse_duration

_PACKAGE: Final = "bench.application"


def _require_module(name: str) -> str:
    path = Path(__file__).parent.joinpath(*name.split("."))
    if not (path.is_dir() or path.with_suffix(".py").is_file()):
        raise ValueError(f"no module {name} below {_PACKAGE}")
    return name


Module = Annotated[str, Field(pattern=MODULE_PATTERN), AfterValidator(_require_module)]
Label = Annotated[str, Field(pattern=LABEL_PATTERN)]
RequestPath = Annotated[str, Field(pattern=PATH_PATTERN)]
Status = Annotated[int, Field(strict=True, ge=100, le=599)]
Seconds = Annotated[float, BeforeValidator(lambda value: parse_duration(value) if isinstance(value, str) else value)]


class AnswerCheck(Protocol):
    """A module below `bench.application` that knows more about a valid answer than its status."""

    def find_problem(self, body: bytes, versions: Mapping[str, str]) -> str | None:
        """Return what is wrong with the body of an answer to a user who gets these versions of the services that have
        several; None where it is complete. It is called for every response under load."""


class Section(BaseModel):
    """Base of the parts of a definition: frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Ready(Section):
    """The request of the load, and what a valid answer to it is."""

    path: RequestPath = "/"
    status: Status = 200
    contains: str = ""
    timeout_s: Seconds | None = Field(None, alias="timeout")
    """How long the application may take until its first valid answer; None for the target's own limit."""
    check: Module | None = None
    """Module below `bench.application` with a `find_problem`, see `AnswerCheck`."""


class Versions(Section):
    """A service of which several versions exist. Those in `without_calls` call no other service."""

    choices: Annotated[tuple[Label, ...], Field(min_length=1)]
    default: Label
    without_calls: tuple[Label, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        for version in (self.default, *self.without_calls):
            if version not in self.choices:
                raise ValueError(f"{version} is not among the choices: {', '.join(self.choices)}")
        return self


class Login(Section):
    """How a user logs in: a form, of which `{user}` is the name, and the cookie that the answer sets. `header` is the
    one by which services tell each other the user's name, `requests` the name of the logins in the load."""

    path: RequestPath
    form: dict[str, str]
    cookie: str
    header: Annotated[str, Field(pattern=LABEL_PATTERN)]
    requests: str = "login"

    def fill_form(self, user: str) -> dict[str, str]:
        """Return the form of one user."""
        return {name: value.replace("{user}", user) for name, value in self.form.items()}


class LocalProgram(Section):
    """How services run as processes: `python -m bench.application.MODULE SERVICE --port --version --connect-to`.

    `unset` are environment variables that they must not inherit.
    """

    module: Module
    unset: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        return f"{_PACKAGE}.{self.module}"


class ApplicationDefinition(Section):
    """An application: its manifests, where the load enters, what a valid answer is, and who calls whom.

    `calls` are callees by caller, each called once for each request of the load; None where they are unknown.
    `endpoints` are statuses by service and request (`GET /health`); the first is the one that callers request.
    """

    _file: Path = PrivateAttr()

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    default: bool = False
    """Whether scenarios that name no application mean this one."""
    manifests: str = "."
    namespaces: Annotated[tuple[Label, ...], Field(min_length=1)] = ("default",)
    entry: Annotated[str, Field(pattern=ENTRY_PATTERN)]
    ready: Ready = Ready()
    calls: dict[Label, tuple[Label, ...]] | None = None
    versions: dict[Label, Versions] = {}
    endpoints: dict[Label, dict[Annotated[str, Field(pattern=ENDPOINT_PATTERN)], Status]] = {}
    login: Login | None = None
    local: LocalProgram | None = None

    def model_post_init(self, context: Any, /) -> None:
        """Keep the path of the file, which is the context of the validation."""
        self._file = context

    @model_validator(mode="after")
    def _check_calls(self) -> Self:
        self._require_no_cycle(self.entry_service, ())
        return self

    def _require_no_cycle(self, service: str, path: tuple[str, ...]) -> None:
        if service in path:
            raise ValueError(f"calls: {' -> '.join((*path, service))} is a circle; leave `calls` out")
        for callee in (self.calls or {}).get(service, ()):
            self._require_no_cycle(callee, (*path, service))

    @property
    def file(self) -> Path:
        """The file that defines it."""
        return self._file

    @property
    def folder(self) -> Path:
        """The folder of its manifests."""
        return self.file.parent / self.manifests

    @property
    def entry_service(self) -> str:
        return self.entry.rpartition(":")[0]

    @property
    def services(self) -> tuple[str, ...]:
        """The services that the definition names: the entry first, then in the order of the calls."""
        found = list(self._follow_calls([self.entry_service]))
        return tuple(dict.fromkeys([*found, *(self.calls or {}), *self.versions, *self.endpoints]))

    def _follow_calls(self, services: list[str]) -> Iterator[str]:
        while services:
            yield from services
            services = [callee for one in services for callee in (self.calls or {}).get(one, ())]

    def check_answer(self, body: bytes, versions: Mapping[str, str]) -> str | None:
        """Return what is wrong with the body of an answer; None where it is complete."""
        if self.ready.contains and self.ready.contains.encode() not in body:
            return f"answer does not contain {self.ready.contains!r}"
        return import_check(self.ready.check).find_problem(body, versions) if self.ready.check else None

    def list_apps(self) -> tuple[str, ...]:
        """Return the names of the services that its manifests deploy. Raises InputError."""
        objects = [
            one.value
            for file in list_manifest_files(self.folder)
            for one in read_documents(file)
            if isinstance(one.value, dict)
        ]
        names = []
        for one in objects:
            if one.get("kind") == "Deployment":
                with suppress(KeyError, TypeError):  # whoever reads the manifests reports it
                    names.append(str(one["spec"]["template"]["metadata"]["labels"]["app"]))
        return tuple(dict.fromkeys(names))

    @property
    def check_module(self) -> str:
        """The full name of the module that checks answers; empty where there is none."""
        return f"{_PACKAGE}.{self.ready.check}" if self.ready.check else ""


@cache
def import_check(name: str) -> AnswerCheck:
    """Import a module below `bench.application` that checks answers."""
    module: AnswerCheck = importlib.import_module(f"{_PACKAGE}.{name}")
    return module


@cache
def read_definition(file: Path) -> ApplicationDefinition:
    """Read an `application.yaml`. Raises InputError with all problems."""
    documents = read_documents(file)
    if len(documents) != 1:
        raise InputError([Problem(str(file), 0, "", "must contain one YAML document")])
    try:
        return ApplicationDefinition.model_validate(documents[0].value, context=file)
    except ValidationError as error:
        invalid = list_invalid_fields(error, ApplicationDefinition)
        raise InputError([documents[0].problem(one.loc, one.message) for one in invalid]) from None


def list_shipped_applications() -> tuple[str, ...]:
    """Return the names of the applications that ship, the default one first."""
    names = sorted(file.parent.name for file in find_shipped("manifests").glob(f"*/{DEFINITION}"))
    return tuple(sorted(names, key=lambda name: not read_definition(_locate(name)).default))


def _locate(name: str) -> Path:
    return find_shipped("manifests") / name / DEFINITION


def find_application(name: str) -> ApplicationDefinition:
    """Return the definition of a shipped application. Raises InputError for an unknown name."""
    names = list_shipped_applications()
    if name not in names:
        raise InputError(f"unknown application {name!r}{format_suggestion(name, names)}")
    definition = read_definition(_locate(name))
    if definition.name != name:
        raise InputError([Problem(str(definition.file), 0, "name", f"must be {name!r}, the name of its folder")])
    return definition
