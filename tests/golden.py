"""Recorded configurations of real sidecars, and their comparison with generated ones."""

import json
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
MISSING = "needs the recorded configuration of real sidecars, in ../shared/golden next to the repository"

Json = dict[str, Any]

_ENVELOPES = [
    f"type.googleapis.com/envoy.config.{kind}"
    for kind in ("cluster.v3.Cluster", "listener.v3.Listener", "route.v3.RouteConfiguration")
]


@cache
def read_recorded(configuration: str, sidecar: str) -> Json:
    """Read the recorded configuration of a sidecar."""
    parts: Json = json.loads((GOLDEN / configuration / f"{sidecar}.json").read_text("utf-8"))
    return parts


@cache
def normalise_recorded(configuration: str, sidecar: str) -> Json:
    """Read it in a normalised form."""
    parts = read_recorded(configuration, sidecar)
    return _normalise_parts(
        {
            "bootstrap": parts["bootstrap"],
            "listeners": parts["listeners"],
            "routes": {name: route for name, route in parts["routes"].items() if name == "9080"},
            "clusters": parts["clusters"],
        }
    )


def normalise_built(bootstrap: Json) -> Json:
    """Normalise the same parts of a generated bootstrap; the outbound listener's routes are separate, as from RDS."""
    resources = bootstrap["static_resources"]
    rest = {key: value for key, value in bootstrap.items() if key not in ("static_resources", "node")}
    listeners = json.loads(json.dumps({listener["name"]: listener for listener in resources["listeners"]}))
    manager = listeners["0.0.0.0_9080"]["filter_chains"][0]["filters"][0]["typed_config"]
    routes = manager.pop("route_config")
    return _normalise_parts(
        {
            "bootstrap": {**rest, "node_id": bootstrap["node"]["id"]},
            "listeners": listeners,
            "routes": {routes["name"]: routes},
            "clusters": {cluster["name"]: cluster for cluster in resources["clusters"]},
        }
    )


@cache
def normalise_recorded_kuma(configuration: str, sidecar: str) -> Json:
    """Read a recorded configuration of Kuma in a normalised form; its routes are inside its listeners."""
    parts = read_recorded(configuration, sidecar)
    listeners = {_kuma_name(listener): listener for listener in parts["listeners"].values()}
    return _normalise_parts({"bootstrap": parts["bootstrap"], "listeners": listeners, "clusters": parts["clusters"]})


def normalise_built_kuma(bootstrap: Json) -> Json:
    """Normalise the same parts of a generated bootstrap."""
    resources = json.loads(json.dumps(bootstrap["static_resources"]))
    rest = {key: value for key, value in bootstrap.items() if key not in ("static_resources", "node")}
    return _normalise_parts(
        {
            "bootstrap": {**rest, "node_id": bootstrap["node"]["id"]},
            "listeners": {_kuma_name(listener): listener for listener in resources["listeners"]},
            "clusters": {cluster["name"]: cluster for cluster in resources["clusters"]},
        }
    )


def _kuma_name(listener: Json) -> str:
    """Return a listener's name with its cluster, where Kuma has an address: `outbound:reviews_...`."""
    direction = listener["name"].partition(":")[0]
    manager = listener["filter_chains"][0]["filters"][-1]["typed_config"]
    if "route_config" not in manager:
        return str(listener["name"])
    return f"{direction}:{manager['route_config']['virtual_hosts'][0]['routes'][0]['route']['cluster']}"


def _normalise_parts(parts: Json) -> Json:
    return {key: normalise(value) for key, value in parts.items()}


def normalise(value: Any) -> Any:
    """Turn lists of objects into mappings by name, with their order, so that paths are readable.

    The type in the envelope of a resource, which only dynamic ones have, is left out.
    """
    if isinstance(value, Mapping):
        kept = {key: item for key, item in value.items() if item not in _ENVELOPES}
        return {key: normalise(item) for key, item in _split(kept).items()}
    if not isinstance(value, list) or not value or not all(isinstance(item, Mapping) for item in value):
        return value
    keys = _distinct([_key(item) for item in value])
    named: Json = {key: normalise(item) for key, item in zip(keys, value, strict=True)}
    return {**named, "(order)": keys} if "typed_config" in value[0] else named


def _distinct(keys: Sequence[str]) -> list[str]:
    """Mark repeated keys, so that none is lost."""
    return [key if key not in keys[:place] else f"{key} (again)" for place, key in enumerate(keys)]


def _split(value: Json) -> Json:
    """Split fields of Envoy, so that one expected difference cannot hide another."""
    if "domains" in value:
        names = [name for name in value["domains"] if not name[0].isdecimal()]
        address = [name for name in value["domains"] if name[0].isdecimal()]
        return {**value, "domains": {"names": names, "address": address}}
    return _split_peer_names(value)


def _split_peer_names(value: Json) -> Json:
    """Separate the names of a TLS peer from the source of keys and roots (`secrets`)."""
    if "combined_validation_context" in value:
        combined = value["combined_validation_context"]
        names = _peer_names(combined["default_validation_context"])
        spiffe = combined["validation_context_sds_secret_config"]["name"] == "system_trust_bundle"
        dropped = {"combined_validation_context", "tls_certificate_sds_secret_configs"}
        return {**_drop(value, dropped), "peer_names": names, "secrets": "SDS", "by trust domain": spiffe}
    if "validation_context" in value:
        context = value["validation_context"]
        spiffe = "custom_validator_config" in context
        dropped = {"validation_context", "tls_certificates"}
        names = _peer_names(context)
        return {**_drop(value, dropped), "peer_names": names, "secrets": "files", "by trust domain": spiffe}
    return value


def _peer_names(context: Json) -> list[Json]:
    """Return the names of a TLS peer; Istio still uses the older field."""
    typed = [name["matcher"] for name in context.get("match_typed_subject_alt_names", [])]
    return typed or list(context["match_subject_alt_names"])


def _drop(value: Json, dropped: set[str]) -> Json:
    return {key: item for key, item in value.items() if key not in dropped}


def _key(item: Mapping[str, Any]) -> str:
    match = item.get("filter_chain_match")
    if match is not None:
        protocols = ",".join(match.get("application_protocols", []))
        return f"{item.get('name', 'http')} {match.get('transport_protocol', 'any')} {protocols}".strip()
    for name in ("name", "tag", "tag_name", "upgrade_type"):
        if name in item:
            return str(item[name])
    if "filters" in item:
        return "chain"
    return json.dumps(item, sort_keys=True)


def find_differences(golden: Any, ours: Any, path: str = "") -> Iterator[str]:
    """Yield the paths at which both differ, one for each leaf or missing branch."""
    if isinstance(golden, Mapping) and isinstance(ours, Mapping):
        for key in sorted(golden.keys() | ours.keys()):
            here = f"{path}/{key}" if path else key
            if key not in golden or key not in ours:
                yield here
            else:
                yield from find_differences(golden[key], ours[key], here)
    elif golden != ours:
        yield path


def read_known_differences(page: Path, mesh: str) -> tuple[str, ...]:
    """Read the patterns of the page's table of differences for a mesh (`Istio`, `Kuma`) and for both."""
    table = page.read_text("utf-8").partition("\n| mesh | where |")[2].partition("\n\n")[0]
    rows = [line.split(" | ") for line in table.splitlines()[2:]]
    meant = [where for meshes, where, *_ in rows if meshes.removeprefix("| ") in (mesh, "both")]
    return tuple(pattern for cell in meant for pattern in cell.split("`")[1::2])


def find_unexplained(found: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Return the differences that no pattern covers."""
    return [path for path in found if not any(covers(pattern, path) for pattern in patterns)]


def covers(pattern: str, path: str) -> bool:
    """Whether a pattern matches a path: asterisks match any text, brackets themselves."""
    return fnmatchcase(path, pattern.replace("[", "[[]"))
