"""What control planes make of policies: constructs in `recorded/dialect/MESH-NAME.yaml`, and records beside them.

    python -m tests.dialect --context NAME                            record all on a cluster, which gets each mesh
    python -m tests.dialect --context NAME istio-weights -- OPTIONS   some of them, with options of `meshbench run`

A record, MESH-NAME.json, has the version of the control plane, and of each sidecar the parts of its configuration that
policies decide, in the names of the manifests. `test_dialect_records` compares ours with all records that there are.
"""

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.envoy.config_dump import EnvoyConfig, parse_bootstrap, parse_dump
from bench.meshes import MESHES
from bench.meshes.protocols import Policies
from tests import command
from tests.golden import find_differences, normalise
from tests.policies import parse_folders
from tests.sidecars import application_with, bootstrap_of, place

Json = dict[str, Any]

FOLDER: Final = Path(__file__).parent / "recorded" / "dialect"
RUN_S: Final = 900.0  # of one construct, with the installation of its mesh

_VERSIONS: Final = re.compile(r"^# reviews: (.*)\n")
_OWN: Final = re.compile(r"inbound\|9080\|\||localhost:9080")  # the clusters of a sidecar's own application
_SERVICE: Final = re.compile(r"[.|_]bookinfo[._]|^inbound\||^localhost:9080")  # in names of hosts and clusters
_POLICY_FILTERS: Final = (".JwtAuthentication", ".http.rbac.v3.RBAC", ".network.rbac.v3.RBAC")
_CLUSTER_FIELDS: Final = (
    "circuit_breakers",
    "common_lb_config",
    "connect_timeout",
    "lb_policy",
    "outlier_detection",
    "typed_extension_protocol_options",
    "upstream_connection_options",
)


@dataclass(frozen=True)
class Construct:
    """Policies of one mesh, and the versions of reviews that they need."""

    name: str
    mesh: str
    text: str

    @property
    def reviews(self) -> tuple[str, ...]:
        found = _VERSIONS.match(self.text)
        return tuple(found[1].split()) if found else ("v3",)

    @property
    def record(self) -> Path:
        """The file of its record, which exists once it was made."""
        return FOLDER / f"{self.name}.json"


def list_constructs() -> tuple[Construct, ...]:
    """Return all constructs by name."""
    files = sorted(FOLDER.glob("*.yaml"))
    return tuple(Construct(one.stem, one.stem.partition("-")[0], one.read_text("utf-8")) for one in files)


# --- what policies decide --------------------------------------------------------------------------------------


def find_effects(config: EnvoyConfig, ports: Mapping[int, int] | None = None) -> Json:
    """Return the parts of a sidecar's configuration that policies decide; `ports` are those of the workload, by those
    at which its sidecar listens."""
    inbound = [one for listener in config.listeners for one in _find_inbound(listener)]
    hosts = (host for listener in config.listeners for host in _find_hosts(listener, config))
    clusters = {name: one for name, one in config.clusters.items() if _SERVICE.search(name)}
    return {
        "inbound": _change_ports(inbound, ports or {}),
        "routes": {host["name"]: [_drop(route, "decorator") for route in host["routes"]] for host in hosts},
        "clusters": {name: _describe_cluster(one) for name, one in clusters.items()},
    }


def _find_inbound(listener: Json) -> Iterator[Json]:
    """Yield the chains that lead to the sidecar's own application: how they are reached, and their policies."""
    for chain in listener.get("filter_chains", ()):
        filters = chain.get("filters", ())
        manager = filters[-1]["typed_config"] if filters else {}
        hosts = manager.get("route_config", {}).get("virtual_hosts", ())
        actions = [route["route"] for host in hosts for route in host["routes"] if "route" in route]
        if any(_OWN.match(action.get("cluster", "")) for action in actions):
            every = (*filters, *manager["http_filters"])
            policies = [one for one in every if one["typed_config"]["@type"].endswith(_POLICY_FILTERS)]
            match = _drop(chain.get("filter_chain_match", {}), "destination_port")
            timeouts = {name: manager.get(name) for name in ("stream_idle_timeout", "request_headers_timeout")}
            yield {"match": match, "policies": policies, "actions": actions, **timeouts}


def _find_hosts(listener: Json, config: EnvoyConfig) -> Iterator[Json]:
    """Yield the hosts of services to which a sidecar sends requests."""
    for chain in listener.get("filter_chains", ()):
        for one in chain.get("filters", ()):
            manager = one.get("typed_config", {})
            routes = manager.get("route_config") or config.routes.get(manager.get("rds", {}).get("route_config_name"))
            for host in (routes or {}).get("virtual_hosts", ()):
                if listener.get("traffic_direction") == "OUTBOUND" and _SERVICE.search(host["name"]):
                    yield host


def _describe_cluster(cluster: Json) -> Json:
    istio = cluster.get("metadata", {}).get("filter_metadata", {}).get("istio", {})
    fields = [name for name in _CLUSTER_FIELDS if name != "lb_policy" or not _OWN.match(cluster["name"])]
    sockets = {"transport_socket": "always", "transport_socket_matches": "by endpoint"}
    values = {"lb_policy": "ROUND_ROBIN", **cluster}  # a dump leaves out what is Envoy's default
    return {
        **{name: values[name] for name in fields if name in values},
        "tls": next((text for name, text in sockets.items() if name in cluster), "never"),
        "config": istio.get("config"),
    }


def _change_ports(value: Any, ports: Mapping[int, int]) -> Any:
    if isinstance(value, list):
        return [_change_ports(one, ports) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        name: ports.get(one, one) if name == "destination_port" else _change_ports(one, ports)
        for name, one in value.items()
    }


def _drop(value: Json, name: str) -> Json:
    return {key: one for key, one in value.items() if key != name}


# --- records ---------------------------------------------------------------------------------------------------


def make_record(run: Path) -> Json:
    """Return the record of a run of one configuration, in the names of the manifests."""
    about = command.read_record(run)
    suffix = str(about["run_id"]).rpartition("-")[2]
    (folder,) = (run / "trials").glob("*/proxies")
    texts = {
        path.stem: path.read_text("utf-8").replace(f"bookinfo-{suffix}", "bookinfo") for path in folder.glob("*.json")
    }
    return {
        "meshes": about["cluster"]["mesh_versions"],
        "sidecars": {name: find_effects(parse_dump(json.loads(text))) for name, text in sorted(texts.items())},
    }


def write_scenario(construct: Construct, folder: Path) -> Path:
    """Write a scenario of some seconds whose only configuration has the construct's policies."""
    (folder / construct.name).mkdir()
    (folder / construct.name / "policies.yaml").write_text(construct.text, "utf-8")
    own = {"name": construct.name, "mesh": construct.mesh, "manifests": [construct.name]}
    reviews = construct.reviews[0] if len(construct.reviews) == 1 else [*construct.reviews]
    return command.write_scenario(folder, [own], application={"versions": {"reviews": reviews}})


def record(construct: Construct, context: str, options: list[str]) -> None:
    """Run a construct on a cluster for some seconds, and write its record."""
    with tempfile.TemporaryDirectory() as created:
        scenario, output = write_scenario(construct, Path(created)), Path(created) / "results"
        places: tuple[str | Path, ...] = ("--scenario", scenario, "--context", context, "--output", output)
        finished = command.start("run", *places, "--yes", *options, output=output).wait(RUN_S)
        runs = [path.parents[2] for path in output.glob("*/trials/*/proxies")]
        if not runs:
            raise SystemExit(f"{construct.name}: no sidecar was recorded: {finished.output}")
        construct.record.write_text(json.dumps(make_record(runs[0]), indent=1) + "\n", "utf-8")


# --- ours ------------------------------------------------------------------------------------------------------


def read_construct(construct: Construct, folder: Path) -> Policies:
    """Return the policies of a construct, all of which are translated, from a new folder below `folder`."""
    manifests = Path(tempfile.mkdtemp(dir=folder))
    (manifests / "policies.yaml").write_text(construct.text, "utf-8")
    application = application_with(*construct.reviews)
    sources = parse_folders(construct.mesh, [manifests], application)
    reading = MESHES[construct.mesh].policies.read_policies(sources, application)
    assert reading.untranslated == ()
    return reading.policies


def build_effects(mesh: str, name: str, policies: Policies, *reviews: str) -> Json:
    """Return what policies decide of the sidecar of a workload on this machine."""
    application = application_with(*reviews)
    ports = dict.fromkeys(place(mesh, application).inbound.values(), 9080)
    bootstrap = bootstrap_of(mesh, name, application, policies)
    return find_effects(parse_bootstrap(json.loads(json.dumps(bootstrap))), ports)


def list_differences(construct: Construct, record: Json, folder: Path) -> list[str]:
    """Return where sidecars of this machine differ from recorded ones, by sidecar and path."""
    policies = read_construct(construct, folder)
    return [
        f"{name}: {path}"
        for name, effects in record["sidecars"].items()
        for path in find_differences(
            normalise(effects), normalise(build_effects(construct.mesh, name, policies, *construct.reviews))
        )
    ]


def main(arguments: list[str]) -> None:
    """Record the constructs that are named, or all of them; options of the runs are after `--`."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    known = {one.name: one for one in list_constructs()}
    parser = argparse.ArgumentParser(description="Record what control planes make of policies.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; default: all")
    parser.add_argument("--context", required=True)
    given = parser.parse_args(arguments[:end])
    for name in given.names or known:
        record(known[name], given.context, arguments[end + 1 :])
        sys.stdout.write(f"{known[name].record}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
