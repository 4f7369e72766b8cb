"""Model Istio's security policies: string patterns, manifests, and which of them apply to a workload.

Features that meshbench does not translate (CUSTOM and AUDIT, conditions, IP blocks, request principals) are errors with
file and line, never ignored.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from bench.application.manifests import Kind, LabelSelector, Manifest, Name, Part, PolicyMetadata, Text
from bench.application.model import GATEWAY, Workload
from bench.envoy.wire import Mode
from bench.meshes.istio.route_manifests import ROUTE_KINDS, DestinationRule, Some, VirtualService

ROOT_NAMESPACE: Final = "istio-system"
TRUST_DOMAIN: Final = "cluster.local"

_SPIFFE_PATH: Final = re.compile(r"[A-Za-z0-9._/*-]+")
_VERSIONS: Final = ("security.istio.io/v1", "security.istio.io/v1beta1")  # the same meaning under two names

PatternKind = Literal["exact", "prefix", "suffix", "present"]


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed pattern; `text` is the pattern without its asterisk."""

    kind: PatternKind
    text: str

    def matches(self, value: str, *, ignore_case: bool = False) -> bool:
        """Return whether `value` matches the pattern; `*` matches every string except the empty one."""
        text, value = (self.text.lower(), value.lower()) if ignore_case else (self.text, value)
        match self.kind:
            case "exact":
                return value == text
            case "prefix":
                return value.startswith(text)
            case "suffix":
                return value.endswith(text)
            case "present":
                return value != ""

    def string_match(self, *, after: str = "") -> dict[str, Any]:
        """Return Envoy's StringMatcher for the pattern; `after` is a fixed prefix of every value."""
        if self.kind == "present":
            return {"safe_regex": {"regex": ".+"}}
        if self.kind == "suffix" and after:
            return {"safe_regex": {"regex": f"{after}.*{self.text}"}}
        return {self.kind: (after if self.kind != "suffix" else "") + self.text}


def parse_pattern(value: str) -> Pattern:
    """Parse a pattern. Raises ValueError for an asterisk in the middle, or a second one."""
    if value == "*":
        return Pattern("present", "")
    kind: PatternKind = "suffix" if value.startswith("*") else "prefix" if value.endswith("*") else "exact"
    text = value.removeprefix("*") if kind == "suffix" else value.removesuffix("*") if kind == "prefix" else value
    if "*" in text:
        raise ValueError(f"{value!r}: an asterisk must be at the start or the end, once")
    return Pattern(kind, text)


def _is_pattern(value: str) -> str:
    parse_pattern(value)
    return value


def _is_principal(value: str) -> str:
    if _SPIFFE_PATH.fullmatch(value) is None:
        raise ValueError(f"{value!r} is no principal; write TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT")
    return _is_pattern(value)


def _is_path(value: str) -> str:
    if "{" in value:
        raise ValueError(f"{value!r}: path templates are not translated by meshbench")
    return _is_pattern(value)


Patterns = Some[Annotated[Text, AfterValidator(_is_pattern)]]
Principals = Some[Annotated[Text, AfterValidator(_is_principal)]]
Paths = Some[Annotated[Text, AfterValidator(_is_path)]]
PortText = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,4}$")]


class Mtls(Part):
    mode: Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"] = "UNSET"


class PeerAuthenticationSpec(Part):
    selector: LabelSelector | None = None
    mtls: Mtls = Mtls()
    port_level_mtls: dict[PortText, Mtls] = Field(default={})


class PeerAuthentication(Manifest):
    """Which connections a workload accepts: plaintext, mutual TLS, or both."""

    metadata: PolicyMetadata
    spec: PeerAuthenticationSpec = PeerAuthenticationSpec()


class _NotEmpty(Part):
    @model_validator(mode="after")
    def _check_not_empty(self) -> "_NotEmpty":
        if not self.model_fields_set:
            raise ValueError("must name at least one field")
        return self


class SourceMatch(_NotEmpty):
    """The source of a request. Fields are combined with and, values with or."""

    untranslated: ClassVar[frozenset[str]] = frozenset(
        f"{prefix}{name[0].upper() if prefix else name[0]}{name[1:]}"
        for name in ("requestPrincipals", "ipBlocks", "remoteIpBlocks", "serviceAccounts", "trustDomains")
        for prefix in ("", "not")
    )

    principals: Principals = ()
    not_principals: Principals = ()
    namespaces: Some[Name] = ()
    not_namespaces: Some[Name] = ()


class OperationMatch(_NotEmpty):
    """The operation of a request. Fields are combined with and, values with or."""

    hosts: Patterns = ()
    not_hosts: Patterns = ()
    ports: Some[PortText] = ()
    not_ports: Some[PortText] = ()
    methods: Patterns = ()
    not_methods: Patterns = ()
    paths: Paths = ()
    not_paths: Paths = ()


class From(Part):
    source: SourceMatch


class To(Part):
    operation: OperationMatch


class Rule(Part):
    """Matches when one of `from` and one of `to` match; a missing list matches everything."""

    untranslated: ClassVar[frozenset[str]] = frozenset({"when"})

    from_: Some[From] = Field(default=(), alias="from")
    to: Some[To] = ()


class AuthorizationPolicySpec(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"targetRef", "targetRefs", "provider"})

    selector: LabelSelector | None = None
    action: Literal["ALLOW", "DENY"] = "ALLOW"
    rules: tuple[Rule, ...] = ()


class AuthorizationPolicy(Manifest):
    """Which requests a workload accepts; without rules it matches none."""

    metadata: PolicyMetadata
    spec: AuthorizationPolicySpec = AuthorizationPolicySpec()


Policy = PeerAuthentication | AuthorizationPolicy
Routing = VirtualService | DestinationRule

KINDS: Final[dict[str, Kind[Any]]] = {
    "PeerAuthentication": Kind(_VERSIONS, PeerAuthentication, ROOT_NAMESPACE),
    "AuthorizationPolicy": Kind(_VERSIONS, AuthorizationPolicy, ROOT_NAMESPACE),
    **ROUTE_KINDS,
}


@dataclass(frozen=True, slots=True)
class Policies:
    """The policies of one configuration; those without a namespace are in the application's, `namespace`."""

    namespace: str
    peer_authentications: tuple[PeerAuthentication, ...] = ()
    authorization_policies: tuple[AuthorizationPolicy, ...] = ()
    virtual_services: tuple[VirtualService, ...] = ()
    destination_rules: tuple[DestinationRule, ...] = ()

    def namespace_of(self, policy: Policy | Routing) -> str:
        """Return the policy's namespace, by default the application's."""
        return policy.metadata.namespace or self.namespace

    def applies(self, policy: Policy, workload: Workload) -> bool:
        """Return whether the policy applies to the workload, by namespace (the root namespace means all) and labels."""
        selector = policy.spec.selector
        near = self.namespace_of(policy) in {self.namespace, ROOT_NAMESPACE}
        return near and (selector is None or selector.selects(workload.labels))

    def authorization_for(self, workload: Workload, action: str) -> tuple[AuthorizationPolicy, ...]:
        """Return the AuthorizationPolicies with `action` that apply to the workload, in order."""
        return tuple(
            policy
            for policy in self.authorization_policies
            if policy.spec.action == action and self.applies(policy, workload)
        )

    def mode(self, workload: Workload) -> Mode:
        """Return what the workload accepts at its port, by the narrowest PeerAuthentication that sets a mode.

        The order is port, workload, namespace, mesh; without a mode both are accepted. PeerAuthentication does not
        apply to a gateway, whose ports are those of its Gateway.
        """
        if workload.name == GATEWAY:
            return "DISABLE"
        relevant = [policy for policy in self.peer_authentications if self.applies(policy, workload)]
        narrowest_first = sorted(relevant, key=self.width)
        for policy in narrowest_first:
            port = policy.spec.port_level_mtls.get(str(workload.port), Mtls())
            for mode in (port.mode, policy.spec.mtls.mode):
                if mode != "UNSET":
                    return mode
        return "PERMISSIVE"

    def width(self, policy: PeerAuthentication) -> int:
        if policy.spec.selector is not None:
            return 0
        return 2 if self.namespace_of(policy) == ROOT_NAMESPACE else 1
