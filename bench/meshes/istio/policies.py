"""Model Istio's security policies: string patterns, manifests, and which of them apply to a workload.

Features that meshbench does not translate (CUSTOM, keys of tokens from a URL) are errors with file and line, never
ignored.
"""

import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal, Self, get_args

from pydantic import AfterValidator, Field, TypeAdapter, model_validator

from bench.application.manifests import Kind, LabelSelector, Manifest, Part, PolicyMetadata, Text
from bench.application.model import GATEWAY, Workload
from bench.envoy.wire import Mode
from bench.meshes.istio.route_manifests import ROUTE_KINDS, DestinationRule, Some, VirtualService

ROOT_NAMESPACE: Final = "istio-system"
TRUST_DOMAIN: Final = "cluster.local"

_CONDITION_KEY: Final = re.compile(r"([a-z.]+)((?:\[[^\[\]]+\])*)")
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


def _is_address(value: str) -> str:
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f"{value!r} is no IP address, and no block such as 10.0.0.0/8") from None
    return value


def _is_key_set(value: str) -> str:
    try:
        keys = json.loads(value)["keys"]
    except (ValueError, TypeError, KeyError):
        keys = None
    if not isinstance(keys, list) or not keys:
        raise ValueError('is no JSON Web Key Set; write {"keys": [...]}')
    return value


Addresses = Some[Annotated[Text, AfterValidator(_is_address)]]
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


Attribute = Literal[
    "source.principal",
    "source.account",  # only of a source
    "source.namespace",
    "source.ip",
    "remote.ip",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "request.auth.claims",
    "request.headers",
    "destination.ip",
    "destination.port",
    "connection.sni",
]
ADDRESSES: Final[frozenset[Attribute]] = frozenset({"source.ip", "remote.ip", "destination.ip"})
TOKEN: Final[frozenset[Attribute]] = frozenset(
    {"request.auth.principal", "request.auth.audiences", "request.auth.presenter", "request.auth.claims"}
)
_KEYED: Final = ("request.auth.claims", "request.headers")  # with a name in brackets
_CONDITIONS: Final[Mapping[str, Attribute]] = {one: one for one in get_args(Attribute) if one != "source.account"}


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of a rule: the attribute, of which `name` is the part, has one of the values, and none of the
    others."""

    attribute: Attribute
    values: tuple[str, ...]
    not_values: tuple[str, ...]
    name: tuple[str, ...] = ()


class SourceMatch(_NotEmpty):
    """The source of a request. Fields are combined with and, values with or."""

    untranslated: ClassVar[frozenset[str]] = frozenset({"trustDomains", "notTrustDomains"})

    principals: Principals = ()
    not_principals: Principals = ()
    request_principals: Patterns = ()
    not_request_principals: Patterns = ()
    namespaces: Patterns = ()
    not_namespaces: Patterns = ()
    ip_blocks: Addresses = ()
    not_ip_blocks: Addresses = ()
    remote_ip_blocks: Addresses = ()
    not_remote_ip_blocks: Addresses = ()
    service_accounts: Some[Text] = ()
    not_service_accounts: Some[Text] = ()

    def conditions(self) -> Iterator[Condition]:
        """Yield its conditions in istiod's order."""
        every: tuple[Condition, ...] = (
            Condition("source.account", self.service_accounts, self.not_service_accounts),
            Condition("source.principal", self.principals, self.not_principals),
            Condition("request.auth.principal", self.request_principals, self.not_request_principals),
            Condition("source.namespace", self.namespaces, self.not_namespaces),
            Condition("remote.ip", self.remote_ip_blocks, self.not_remote_ip_blocks),
            Condition("source.ip", self.ip_blocks, self.not_ip_blocks),
        )
        return (one for one in every if one.values or one.not_values)


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


class When(Part):
    """A condition of a rule on any attribute of a request."""

    key: Text
    values: Some[Text] = ()
    not_values: Some[Text] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        found = _CONDITION_KEY.fullmatch(self.key)
        known = found is not None and found[1] in _CONDITIONS and bool(found[2]) == (found[1] in _KEYED)
        if not known or (self.key.startswith("request.headers") and self.key.count("[") > 1):
            raise ValueError(f"{self.key!r} is no attribute that meshbench translates")
        if not self.values and not self.not_values:
            raise ValueError("must have values or notValues")
        check = _CHECKS.get(self.condition.attribute, _is_pattern)
        for value in (*self.values, *self.not_values):
            check(value)
        return self

    @property
    def condition(self) -> Condition:
        attribute, _, rest = self.key.removesuffix("]").partition("[")
        return Condition(_CONDITIONS[attribute], self.values, self.not_values, tuple(filter(None, rest.split("]["))))


_CHECKS: Final[Mapping[Attribute, Callable[[str], str]]] = {
    **dict.fromkeys(ADDRESSES, _is_address),
    "source.principal": _is_principal,
    "destination.port": TypeAdapter(PortText).validate_python,
}


class Rule(Part):
    """Matches when one of `from`, one of `to` and all of `when` match; a missing list matches everything."""

    from_: Some[From] = Field(default=(), alias="from")
    to: Some[To] = ()
    when: Some[When] = ()

    def sources(self) -> tuple[tuple[Condition, ...], ...]:
        """Return the conditions of each source, with those that every request must fulfil; one list without any."""
        common = tuple(one.condition for one in self.when)
        return tuple((*part.source.conditions(), *common) for part in self.from_) or (common,)

    @property
    def attributes(self) -> frozenset[Attribute]:
        """The attributes that decide whether a request matches, beside its operation."""
        return frozenset(one.attribute for conditions in self.sources() for one in conditions)


class AuthorizationPolicySpec(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"targetRef", "targetRefs", "provider"})

    selector: LabelSelector | None = None
    action: Literal["ALLOW", "DENY", "AUDIT"] = "ALLOW"
    rules: tuple[Rule, ...] = ()


class AuthorizationPolicy(Manifest):
    """Which requests a workload accepts; without rules it matches none."""

    metadata: PolicyMetadata
    spec: AuthorizationPolicySpec = AuthorizationPolicySpec()


class TokenHeader(Part):
    name: Text
    prefix: str = ""


class ClaimHeader(Part):
    header: Text
    claim: Text


class JwtRule(Part):
    """One issuer of tokens, whose keys are written out; without them istiod would look for them at the issuer."""

    untranslated: ClassVar[frozenset[str]] = frozenset({"jwksUri", "jwks_uri", "timeout"})

    issuer: Text
    jwks: Annotated[Text, AfterValidator(_is_key_set)]
    audiences: tuple[Text, ...] = ()
    from_headers: tuple[TokenHeader, ...] = ()
    from_params: tuple[Text, ...] = ()
    from_cookies: tuple[Text, ...] = ()
    output_payload_to_header: Text | None = None
    output_claim_to_headers: tuple[ClaimHeader, ...] = ()
    forward_original_token: bool = False
    space_delimited_claims: tuple[Text, ...] = ()


class RequestAuthenticationSpec(Part):
    untranslated: ClassVar[frozenset[str]] = frozenset({"targetRef", "targetRefs"})

    selector: LabelSelector | None = None
    jwt_rules: tuple[JwtRule, ...] = ()


class RequestAuthentication(Manifest):
    """Which tokens a workload accepts; a request without one passes, and one with an invalid token does not."""

    metadata: PolicyMetadata
    spec: RequestAuthenticationSpec = RequestAuthenticationSpec()


Policy = PeerAuthentication | RequestAuthentication | AuthorizationPolicy
Routing = VirtualService | DestinationRule

KINDS: Final[dict[str, Kind[Any]]] = {
    "PeerAuthentication": Kind(_VERSIONS, PeerAuthentication, ROOT_NAMESPACE),
    "RequestAuthentication": Kind(_VERSIONS, RequestAuthentication, ROOT_NAMESPACE),
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
    request_authentications: tuple[RequestAuthentication, ...] = ()

    def namespace_of(self, policy: Policy | Routing) -> str:
        """Return the policy's namespace, by default the application's."""
        return policy.metadata.namespace or self.namespace

    def applies(self, policy: Policy, workload: Workload) -> bool:
        """Return whether the policy applies to the workload, by namespace (the root namespace means all) and labels."""
        selector = policy.spec.selector
        near = self.namespace_of(policy) in {workload.namespace or self.namespace, ROOT_NAMESPACE}
        return near and (selector is None or selector.selects(workload.labels))

    def authorization_for(self, workload: Workload, action: str) -> tuple[AuthorizationPolicy, ...]:
        """Return the AuthorizationPolicies with `action` that apply to the workload, in order."""
        return tuple(
            policy
            for policy in self.authorization_policies
            if policy.spec.action == action and self.applies(policy, workload)
        )

    def jwt_rules(self, workload: Workload) -> tuple[JwtRule, ...]:
        """Return the issuers of tokens that the workload accepts, in istiod's order."""
        found = (one for one in self.request_authentications if self.applies(one, workload))
        return tuple(sorted((rule for one in found for rule in one.spec.jwt_rules), key=lambda rule: rule.issuer))

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
