"""Model Kuma's manifests of the Mesh, identities and permissions, strictly.

Features that meshbench does not translate (permissive mutual TLS, shadow policies, tags other than the service) are
errors with file and line, never ignored.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from bench.application.manifests import SERVER_METADATA, Kind, Manifest, Name, Part, Text
from bench.meshes.kuma.naming import DOMAIN_TEMPLATE, DOMAIN_VARIABLE, MESH_LABEL, ROOT_NAMESPACE

ANY: Final = "*"

Verb = Literal["deny", "allow"]


def _are_plain_labels(labels: dict[str, str]) -> dict[str, str]:
    if labels.get(MESH_LABEL, "default") != "default":
        raise ValueError(f"{MESH_LABEL} is {labels[MESH_LABEL]!r}; the application is in the mesh 'default'")
    for key in labels:
        if "kuma.io/" in key and key != MESH_LABEL:
            raise ValueError(f"{key} changes what the policy does; meshbench does not translate it")
    return labels


def _is_spiffe_id(value: str) -> str:
    if not value.startswith("spiffe://") or value.endswith("/"):
        raise ValueError(f"{value!r} is no SPIFFE id; write spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT")
    return value


Labels = Annotated[dict[str, str], AfterValidator(_are_plain_labels)]
Lifetime = Annotated[str, Field(pattern=r"^[1-9][0-9]*[smhdy]$")]


class PolicyMetadata(Part):
    """`metadata` of a policy; annotations could change its effect, and are not translated."""

    untranslated: ClassVar[frozenset[str]] = SERVER_METADATA | {"annotations"}

    name: Name
    namespace: Name | None = None
    labels: Labels = Field(default={})


# --- Mesh ----------------------------------------------------------------------------------------------------


class MeshMetadata(Part):
    name: Literal["default"]
    labels: Labels = Field(default={})


class MeshServices(Part):
    mode: Literal["Disabled", "Exclusive"] = "Disabled"


class OutboundTraffic(Part):
    passthrough: bool = True


class Networking(Part):
    outbound: OutboundTraffic = OutboundTraffic()


class Rotation(Part):
    expiration: Lifetime


class DataplaneCertificate(Part):
    rotation: Rotation


class Root(Part):
    rsa_bits: Literal[2048] = Field(default=2048, alias="RSAbits")
    expiration: Lifetime = "10y"


class Authority(Part):
    ca_cert: Root = Root()


class Backend(Part):
    """The builtin authority of a mesh; only its default mode, strict, is translated."""

    untranslated: ClassVar[frozenset[str]] = frozenset({"rootChain"})

    name: Name
    type: Literal["builtin"]
    mode: Literal["STRICT"] = "STRICT"
    dp_cert: DataplaneCertificate | None = None
    conf: Authority = Authority()


class MeshMtls(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"skipValidation"})

    enabled_backend: Name
    backends: Annotated[tuple[Backend, ...], Field(min_length=1)]


class MeshSpec(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset(
        {"constraints", "logging", "metrics", "routing", "skipCreatingInitialPolicies", "tracing"}
    )

    mesh_services: MeshServices = MeshServices()
    networking: Networking = Networking()
    mtls: MeshMtls | None = None


class Mesh(Manifest):
    """The mesh itself: its mode of Services, and the older form of mutual TLS."""

    metadata: MeshMetadata
    spec: MeshSpec = MeshSpec()


# --- MeshIdentity and MeshTrafficPermission ------------------------------------------------------------------


class NoLabels(Part):
    """An empty mapping, which selects all workloads. A narrower identity would leave others without mutual TLS."""


class IdentitySelector(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"matchExpressions"})

    match_labels: NoLabels


class DataplaneSelector(Part):
    dataplane: IdentitySelector


class Generated(Part):
    enabled: Literal[True]


class CertificateParameters(Part):
    expiry: Lifetime = "24h"


class Bundled(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"ca"})

    insecure_allow_self_signed: Literal[True]
    autogenerate: Generated
    certificate_parameters: CertificateParameters = CertificateParameters()
    mesh_trust_creation: Literal["Enabled"] = "Enabled"


class Provider(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"spire"})

    type: Literal["Bundled"]
    bundled: Bundled


def _is_domain_template(value: str) -> str:
    rest = DOMAIN_VARIABLE.sub("x", value)
    if "{" in rest or not re.fullmatch(r"[a-z0-9._-]+", rest):
        raise ValueError(f"{value!r} is no trust domain; meshbench knows the variables .Mesh and .Zone")
    return value


class SpiffeId(Part):
    """The form of SPIFFE ids; the path is the default one."""

    untranslated: ClassVar[frozenset[str]] = frozenset({"path"})

    trust_domain: Annotated[Text, AfterValidator(_is_domain_template)] = DOMAIN_TEMPLATE


class MeshIdentitySpec(Part):
    selector: DataplaneSelector
    provider: Provider
    spiffe_id: SpiffeId = Field(default=SpiffeId(), alias="spiffeID")


class IdentityMetadata(PolicyMetadata):
    namespace: Literal["kuma-system"]


class MeshIdentity(Manifest):
    """Certificates for all workloads, by service account; with it, sidecars accept only mutual TLS."""

    metadata: IdentityMetadata
    spec: MeshIdentitySpec


class SpiffeIdMatch(Part):
    type: Literal["Exact", "Prefix"]
    value: Annotated[Text, AfterValidator(_is_spiffe_id)]

    def matches(self, spiffe_id: str) -> bool:
        return spiffe_id == self.value if self.type == "Exact" else spiffe_id.startswith(self.value)


class Match(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"sni"})

    spiffe_id: SpiffeIdMatch = Field(alias="spiffeID")


Matches = Annotated[tuple[Match, ...], Field(min_length=1)]


class RuleDefault(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"allowWithShadowDeny", "action"})

    deny: Matches = ()
    allow: Matches = ()


class Rule(Part):
    default: RuleDefault


class TargetRef(Part):
    """The workloads to which a policy applies; without labels all in the scope of its namespace."""

    untranslated: ClassVar[frozenset[str]] = frozenset(
        {"mesh", "name", "namespace", "proxyTypes", "sectionName", "tags"}
    )

    kind: Literal["Dataplane", "Mesh"]
    labels: dict[str, str] = Field(default={})

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "Mesh" and self.labels:
            raise ValueError("a Mesh has no labels; write kind Dataplane to select workloads")
        return self


class ServiceTag(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"app", "kuma.io/protocol", "kuma.io/zone", "version"})

    service: Text = Field(alias="kuma.io/service")


class Caller(Part):
    """All callers, or those with a service tag."""

    untranslated: ClassVar[frozenset[str]] = frozenset({"labels", "mesh", "namespace", "proxyTypes", "sectionName"})
    other_values: ClassVar[frozenset[str]] = frozenset({"MeshExternalService", "MeshGateway", "MeshServiceSubset"})

    kind: Literal["Mesh", "MeshSubset", "MeshService"]
    tags: ServiceTag | None = None
    name: Text | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        given = {"tags": self.tags, "name": self.name}
        wanted = {"MeshSubset": "tags", "MeshService": "name"}.get(self.kind)
        for field, value in given.items():
            if (value is not None) != (field == wanted):
                raise ValueError(f"a {self.kind} has {wanted or 'neither tags nor a name'}")
        return self

    @property
    def service(self) -> str:
        """The service tag, or ANY."""
        return self.tags.service if self.tags else self.name or ANY


class FromDefault(Part):
    other_values: ClassVar[frozenset[str]] = frozenset({"AllowWithShadowDeny"})

    action: Literal["Allow", "Deny"]


class From(Part):
    target_ref: Caller
    default: FromDefault


class MeshTrafficPermissionSpec(Part):
    target_ref: TargetRef = TargetRef(kind="Dataplane")
    rules: tuple[Rule, ...] = ()
    from_: tuple[From, ...] = Field(default=(), alias="from")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.rules) == bool(self.from_):
            raise ValueError("must have one of rules and from")
        return self


class MeshTrafficPermission(Manifest):
    """Which callers are allowed.

    With `rules` they are identities of a MeshIdentity: a matching deny wins, then a matching allow, else the call is
    denied. With `from` they are services of the builtin authority: of several entries that match, the last one counts.
    """

    metadata: PolicyMetadata
    spec: MeshTrafficPermissionSpec

    def entries(self) -> Iterator[tuple[Verb, SpiffeIdMatch]]:
        """Yield its entries in order."""
        for rule in self.spec.rules:
            for match in rule.default.deny:
                yield "deny", match.spiffe_id
            for match in rule.default.allow:
                yield "allow", match.spiffe_id


# --- TrafficPermission ---------------------------------------------------------------------------------------


class TagMatch(Part):
    match: ServiceTag


TagMatches = Annotated[tuple[TagMatch, ...], Field(min_length=1)]


class TrafficPermissionSpec(Part):
    sources: TagMatches
    destinations: TagMatches


class TrafficPermissionMetadata(Part):
    """`metadata` of an older policy, which applies to the whole mesh and has no namespace."""

    untranslated: ClassVar[frozenset[str]] = SERVER_METADATA | {"annotations", "namespace"}

    name: Name
    labels: Labels = Field(default={})


class TrafficPermission(Manifest):
    """Which services may connect; for each destination, the permission that names it most closely is used."""

    mesh: Literal["default"] = "default"
    metadata: TrafficPermissionMetadata
    spec: TrafficPermissionSpec

    def rank(self, tags: tuple[str, ...]) -> int:
        """Return how closely it names a workload with these service tags: 2 by name, 1 by `*`, 0 not at all."""
        named = {destination.match.service for destination in self.spec.destinations}
        return 2 if named & set(tags) else 1 if ANY in named else 0


KINDS: Final[dict[str, Kind[Any]]] = {
    model.__name__: Kind(("kuma.io/v1alpha1",), model, ROOT_NAMESPACE)
    for model in (Mesh, MeshIdentity, MeshTrafficPermission, TrafficPermission)
}
