"""Define where the pods of a run may be on a cluster: the scenario's key `placement`."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import (
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    Strict,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from bench.files.validation import LABEL_KEY_PATTERN, LABEL_VALUE_PATTERN, format_value
from bench.scenario.types import Section

LabelKey = Annotated[str, Field(pattern=LABEL_KEY_PATTERN)]
LabelValue = Annotated[str, Field(pattern=LABEL_VALUE_PATTERN)]
Part = Literal["application", "load", "mesh", "gateway", "probes"]
PARTS: Final[tuple[Part, ...]] = get_args(Part)

_OWN_DOMAIN: Final = "meshbench.dev/"
_RESERVED: Final = {"app.kubernetes.io/managed-by": "meshbench", "kubernetes.io/metadata.name": "Kubernetes"}
_TAINT: Final = re.compile(r"([^=:]+)(?:=([^:]*))?(?::(.+))?")
_PAIRS_TITLE: Final = "mapping, or a list of `KEY=VALUE`"
_TAINT_TITLE: Final = "taint as `KEY=VALUE:EFFECT`, or toleration as in a pod"


def split_pairs(value: object) -> object:
    """Return the mapping that `KEY=VALUE`, or a list of such texts, stands for; any other value unchanged."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list):
        return value
    pairs: dict[str, str] = {}
    for text in texts:
        key, equals, own = str(text).partition("=")
        if not isinstance(text, str) or not equals:
            raise ValueError(f"write KEY=VALUE, not {format_value(text)}")
        if key in pairs:
            raise ValueError(f"{key} is given twice")
        pairs[key] = own
    return pairs


def _split_taint(value: object) -> object:
    """Return the toleration of a taint that is written as for `kubectl taint`; any other value unchanged. Without `=`
    the taint may have any value, without an effect any effect."""
    if not isinstance(value, str):
        return value
    match = _TAINT.fullmatch(value)
    if match is None:
        raise ValueError(f"{format_value(value)} is not a taint; write KEY=VALUE:EFFECT")
    key, own, effect = match.groups()
    found: dict[str, Any] = {"key": key, "operator": "Exists"} if own is None else {"key": key, "value": own}
    return found if effect is None else {**found, "effect": effect}


@dataclass(frozen=True, slots=True, eq=False)
class _Written:
    """A second, shorter form of a value, as text; records have the long one."""

    read: Any
    title: str
    schema: tuple[JsonSchemaValue, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.read, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        made = handler(schema)
        return made if handler.mode == "serialization" else {"title": self.title, "anyOf": [made, *self.schema]}


_TEXT: Final[JsonSchemaValue] = {"type": "string"}
_PAIRS: Final = _Written(split_pairs, _PAIRS_TITLE, (_TEXT, {"type": "array", "items": _TEXT}))

Labels = Annotated[dict[LabelKey, LabelValue], _PAIRS]
Annotations = Annotated[dict[LabelKey, Annotated[str, Field(max_length=100_000)]], _PAIRS]


class Toleration(Section):
    """A taint that pods tolerate, as Kubernetes has it."""

    key: LabelKey | None = None
    operator: Literal["Equal", "Exists"] = "Equal"
    value: LabelValue = ""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: Annotated[int, Strict(), Field(ge=0)] | None = Field(None, alias="tolerationSeconds")

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Check what the API server would refuse."""
        if self.key is None and self.operator == "Equal":
            raise ValueError("needs a key, or `operator: Exists` for every taint")
        if self.operator == "Exists" and self.value:
            raise ValueError("has a value, which `operator: Exists` does not compare; leave one of them out")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError("has tolerationSeconds, which need `effect: NoExecute`")
        return self

    @property
    def manifest(self) -> dict[str, Any]:
        """The toleration in a pod."""
        found = self.model_dump(by_alias=True, exclude_none=True)
        return {key: value for key, value in found.items() if value != ""}

    def __str__(self) -> str:
        value = f"={self.value}" if self.operator == "Equal" else ""
        seconds = f" for {self.toleration_seconds} s" if self.toleration_seconds is not None else ""
        return f"{self.key or '*'}{value}{f':{self.effect}' if self.effect else ''}{seconds}"


class PodPlacement(Section):
    """The nodes of one part's pods; a key that is left out is that of `application`."""

    node_selector: Labels | None = Field(
        None,
        description="Labels that a node must have. Taints of the same key and value are tolerated, since whoever names"
        " the nodes means them.",
    )
    tolerations: (
        Annotated[
            tuple[
                Annotated[
                    Toleration, _Written(_split_taint, _TAINT_TITLE, ({"type": "string", "pattern": "^[^=:]+"},))
                ],
                ...,
            ],
            Field(max_length=50),
        ]
        | None
    ) = Field(None, description="Taints of nodes on which the pods may be all the same.")

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels that a node must have."""
        return self.node_selector or {}

    @property
    def tolerated(self) -> tuple[Toleration, ...]:
        """The taints that the pods tolerate, those of their nodes' labels included."""
        implied = (Toleration(key=key, value=value) for key, value in self.labels.items())
        return tuple(dict.fromkeys((*(self.tolerations or ()), *implied)))

    def __str__(self) -> str:
        """Format the nodes for people; empty for any node."""
        nodes = f"nodes with {_format_pairs(self.labels)}" if self.labels else ""
        taints = ", ".join(map(str, self.tolerations or ()))
        return " and ".join(text for text in (nodes, f"taints {taints}" if taints else "") if text)


class NamespaceSettings(Section):
    """Labels and annotations of the run's namespaces, such as those of Pod Security or of a quota."""

    labels: Labels = Field({}, description="Labels of each namespace of a trial. None that a mesh reads.")
    annotations: Annotations = Field(
        {}, description="Annotations of each namespace of a trial. None that a mesh reads."
    )

    @field_validator("labels", "annotations")
    @classmethod
    def _check_keys(cls, pairs: dict[str, str]) -> dict[str, str]:
        for key in pairs:
            setter = "meshbench" if key.startswith(_OWN_DOMAIN) else _RESERVED.get(key)
            if setter:
                raise ValueError(f"{key} is set by {setter}; leave it out")
        return pairs


class Placement(Section):
    """Where pods may be on a cluster. Manifests keep their own node selectors and tolerations; of equal keys those of
    the scenario win."""

    application: PodPlacement = Field(default_factory=PodPlacement, description="The application's pods.")
    load: PodPlacement = Field(default_factory=PodPlacement, description="The load generator.")
    mesh: PodPlacement = Field(default_factory=PodPlacement, description="Control planes that the run installs.")
    gateway: PodPlacement = Field(default_factory=PodPlacement, description="The pods of a gateway.")
    probes: PodPlacement = Field(default_factory=PodPlacement, description="The pods that send the requests of proofs.")
    namespaces: NamespaceSettings = Field(
        default_factory=NamespaceSettings, description="The namespaces that trials create."
    )

    def of(self, part: Part) -> PodPlacement:
        """Return the placement of one part: its own, and of what it leaves out the application's."""
        own: PodPlacement = getattr(self, part)
        given = {name: getattr(own, name) for name in PodPlacement.model_fields if getattr(own, name) is not None}
        return self.application.model_copy(update=given)

    def load_on(self, label: str) -> "Placement":
        """Return the placement with the load on nodes with this label, `KEY=VALUE`; the same where it is empty. Raises
        ValueError."""
        if not label:
            return self
        try:
            labels = TypeAdapter(Labels).validate_python(label)
        except ValidationError:
            raise ValueError("write LABEL=VALUE, such as role=benchmark") from None
        return self.model_copy(update={"load": self.load.model_copy(update={"node_selector": labels})})

    def describe(self) -> tuple[str, ...]:
        """Format the placement for people, a line for each part that differs from any node, and for the namespaces."""
        return tuple(self._describe())

    def _describe(self) -> Iterator[str]:
        everywhere = str(self.application)
        if everywhere:
            yield f"application: {everywhere}"
        for part in PARTS[1:]:
            own = str(self.of(part))
            if own != everywhere:
                yield f"{part}: {own or 'any node'}"
        for kind in ("labels", "annotations"):
            if pairs := getattr(self.namespaces, kind):
                yield f"namespaces with {kind} {_format_pairs(pairs)}"


NO_PLACEMENT: Final = Placement()
"""Any node, and namespaces without settings."""


def _format_pairs(pairs: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(pairs.items()))
