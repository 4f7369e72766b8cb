"""Build Envoy's filter for tokens from Istio's RequestAuthentications, in the shape of istiod. Pure."""

from typing import Any, Final

from bench.application.model import Workload
from bench.envoy.parts import TYPES
from bench.meshes.istio.policies import JwtRule, Policies

Json = dict[str, Any]

FILTER: Final = "envoy.filters.http.jwt_authn"
PAYLOAD: Final = "payload"  # the key of a token's claims in the metadata of the filter

_SPACE_DELIMITED: Final = frozenset({"permission", "scope"})  # claims that are lists in one text


def jwt_filters(policies: Policies, workload: Workload, *, clear_route_cache: bool = False) -> list[Json]:
    """Build the HTTP filter of a workload; none without an issuer. A request without a token passes it.

    A gateway has to look for a route again when the claims are known (`clear_route_cache`).
    """
    rules = {f"origins-{index}": rule for index, rule in enumerate(policies.jwt_rules(workload))}
    if not rules:
        return []
    settings = {
        "@type": f"{TYPES}.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": {name: _provider(rule, clear_route_cache=clear_route_cache) for name, rule in rules.items()},
        "rules": [{"match": {"prefix": "/"}, "requires": _requirement([*rules])}],
        "bypass_cors_preflight": True,
    }
    return [{"name": FILTER, "typed_config": settings}]


def _provider(rule: JwtRule, *, clear_route_cache: bool) -> Json:
    claims = sorted(_SPACE_DELIMITED.union(rule.space_delimited_claims))
    settings: Json = {
        "issuer": rule.issuer,
        "audiences": [*rule.audiences],
        "local_jwks": {"inline_string": rule.jwks},
        "forward": rule.forward_original_token,
        "forward_payload_header": rule.output_payload_to_header,
        "payload_in_metadata": PAYLOAD,
        "normalize_payload_in_metadata": {"space_delimited_claims": claims},
        "from_headers": [_header(one.name, one.prefix) for one in rule.from_headers],
        "from_params": [*rule.from_params],
        "from_cookies": [*rule.from_cookies],
        "claim_to_headers": [
            {"header_name": one.header, "claim_name": one.claim} for one in rule.output_claim_to_headers
        ],
        "clear_route_cache": clear_route_cache,
    }
    return {name: value for name, value in settings.items() if value}


def _header(name: str, prefix: str) -> Json:
    return {"name": name, **({"value_prefix": prefix} if prefix else {})}


def _requirement(names: list[str]) -> Json:
    """Require a valid token of one issuer or none. With several issuers a token of one is an invalid one of the others,
    so that any of them alone is enough, too."""
    missing: Json = {"allow_missing": {}}
    each = [{"requires_any": {"requirements": [{"provider_name": name}, missing]}} for name in names]
    if len(each) == 1:
        return each[0]
    own = [{"provider_name": name} for name in names]
    return {"requires_any": {"requirements": [*own, {"requires_all": {"requirements": each}}]}}
