"""Gateways: the required parts of their manifests, and the destination of the load."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from bench.application.model import Application
from bench.errors import InputError
from bench.files.folders import find_shipped
from tests.applications import read_bookinfo
from tests.policies import read_gateway, read_policies

ISTIO = find_shipped("manifests") / "istio" / "gateway"
KUMA = find_shipped("manifests") / "kuma"
FOLDERS = {"istio": ISTIO, "kuma": KUMA / "gateway", "kuma, delegated": KUMA / "gateway-delegated"}


@pytest.fixture(scope="module")
def application() -> Application:
    return read_bookinfo("v3")


def changed(folder: Path, changes: Mapping[str, str], *, source: Path = ISTIO, without: str = "") -> Path:
    """A copy of a gateway's manifests in which texts are replaced, each of which must be there."""
    left = dict(changes)
    for file in sorted(source.glob("*.yaml")):
        text = file.read_text("utf-8")
        for old in [old for old in left if old in text]:
            text = text.replace(old, left.pop(old), 1)
        if file.name != without:
            (folder / file.name).write_text(text, "utf-8")
    assert not left
    return folder


def entered_by(mesh: str, folders: Sequence[Path], application: Application) -> Application:
    """The application, entered through the gateway in the folders."""
    gateway = read_gateway(mesh, folders, application)
    assert gateway is not None
    return application.entered_by(gateway)


def problems(folder: Path, application: Application, mesh: str = "istio") -> str:
    """All errors, one line each, with the name of the file alone."""
    with pytest.raises(InputError) as caught:
        read_gateway(mesh, [folder], application)
    return str(caught.value).replace(f"{folder}/", "")


def test_shipped_gateway_has_paths_of_the_study(application: Application) -> None:
    """Its five routes lead to productpage; any other path has none."""
    gateway = read_gateway("istio", [ISTIO], application)
    assert gateway is not None
    assert {route.service.name for route in gateway.routes} == {"productpage"}
    expected = [(route.kind, route.path) for route in gateway.routes]
    assert expected == [
        ("exact", "/productpage"),
        ("prefix", "/static"),
        ("exact", "/login"),
        ("exact", "/logout"),
        ("prefix", "/api/v1/products"),
    ]
    assert gateway.route("/api/v1/products/0/reviews") is gateway.routes[4]
    assert gateway.route("/productpage/") is None


def test_load_enters_at_the_gateway(application: Application) -> None:
    """The client calls the gateway and is outside of the mesh; the gateway calls productpage under its own account."""
    gateway = read_gateway("istio", [ISTIO], application)
    assert gateway is not None
    entered = application.entered_by(gateway)
    assert entered.calls[:2] == (("locust", "gateway"), ("gateway", "productpage"))
    ids = read_policies("istio", [ISTIO], entered).identities(entered)
    assert ids["bookinfo-gateway"] == ("spiffe://cluster.local/ns/bookinfo/sa/bookinfo-gateway",)
    assert "locust" not in ids


def test_manifests_without_a_gateway_have_none(application: Application) -> None:
    """Policies and routes of sidecars make no gateway."""
    folder = find_shipped("manifests") / "istio" / "policies"
    assert read_gateway("istio", [folder], application) is None


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "host: productpage",
            "host: productpge",
            "bookinfo.yaml:23: spec.http[0].route[0].destination.host: there is no service 'productpge'; did you mean",
        ),
        (
            "host: productpage",
            "host: productpage.bookinfo",
            "spec.http[0].route[0].destination.host: there is no service 'productpage.bookinfo'",
        ),
        ("number: 9080", "number: 9081", "spec.http[0].route[0].destination.port.number: productpage has no port 9081"),
        (
            "            host: productpage",
            "            host: productpage\n            subset: v9",
            "spec.http[0].route[0].destination.subset: subset 'v9' is not translated",
        ),
        (
            "[bookinfo-gateway]",
            "[bookinfo-gatway]",
            "spec.gateways[0]: no Gateway 'bookinfo-gatway'; did you mean bookinfo-gateway?",
        ),
        ('hosts: ["*"]\n  gateways', "hosts: [reviews]\n  gateways", "spec.hosts: "),
        (
            "  selector:\n    app: gateway\n  servers",
            "  selector:\n    app: gatewy\n  servers",
            "spec.selector: selects no Deployment's pods",
        ),
        ("number: 8080", "number: 80", "spec.servers[0].port.number: the gateway's Service has no port 80"),
        ("protocol: HTTP", "protocol: HTTPS", "spec.servers[0].port.protocol"),
        (
            "        protocol: HTTP",
            "        protocol: HTTP\n      tls: {}",
            "spec.servers[0].tls: is not translated for this machine",
        ),
        ("containerPort: 8080", "containerPort: 8081", "spec.ports[0]: port 8080 is not the one that the pods serve"),
        ("serviceAccountName: bookinfo-gateway", "serviceAccountName: bookinfo-gatewy", "no ServiceAccount"),
        ("inject.istio.io/templates: gateway", "inject.istio.io/templates: sidecar", "of the mesh"),
        (
            "        app: gateway\n        version: v1\n        sidecar",
            "        app: gate\n        version: v1\n        sidecar",
            "spec.template.metadata",
        ),
    ],
)
def test_reports_inconsistent_istio_gateway(
    application: Application, tmp_path: Path, old: str, new: str, expected: str
) -> None:
    """A route to a missing object, an undefined gateway and unmatched selectors have one message each."""
    assert expected in problems(changed(tmp_path, {old: new}), application)


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("bookinfo-gateway.yaml", "no Gateway opens a port of these pods"),
        ("bookinfo.yaml", "no VirtualService names this Gateway"),
        ("proxy.yaml", "selects no Deployment's pods"),
    ],
)
def test_reports_missing_part(application: Application, tmp_path: Path, missing: str, expected: str) -> None:
    """Gateway, routes and proxy need each other."""
    assert expected in problems(changed(tmp_path, {}, without=missing), application)


# --- Kuma ----------------------------------------------------------------------------------------------------


def test_all_shipped_gateways_have_the_same_routes(application: Application) -> None:
    """Mesh and form of the gateway do not change which paths enter."""
    probes = [
        "/productpage",
        "/static/css/x",
        "/login",
        "/logout",
        "/api/v1/products/0",
        "/health",
        "/",
        "/productpages",
    ]
    taken = {
        name: [bool(gateway.route(path)) for path in probes]
        for name, folder in FOLDERS.items()
        if (gateway := read_gateway(name.partition(",")[0], [folder], application))
    }
    assert taken == dict.fromkeys(FOLDERS, [True] * 5 + [False] * 3)


def test_kuma_prefix_matches_whole_segments(application: Application) -> None:
    """`/static` matches the paths below it, not those that begin with the same letters."""
    gateway = read_gateway("kuma", [KUMA / "gateway"], application)
    assert gateway is not None
    assert gateway.route("/static/css") is gateway.route("/static")
    assert gateway.route("/staticky") is None


def test_only_delegated_gateway_has_a_sidecar(application: Application) -> None:
    """A page crosses one more proxy with a delegated gateway than with a built-in one."""
    builtin = entered_by("kuma", [KUMA / "gateway"], application)
    delegated = entered_by("kuma", [KUMA / "gateway-delegated"], application)
    assert [one.name for one in delegated.with_sidecar] == [*(one.name for one in builtin.with_sidecar), "gateway"]


@pytest.mark.parametrize(
    ("form", "policies", "name"),
    [
        ("gateway", "policies-legacy", "spiffe://default/gateway_bookinfo_svc"),
        ("gateway-delegated", "policies-legacy", "spiffe://default/gateway_bookinfo_svc_8080"),
        ("gateway-delegated", "policies", "spiffe://default.default.mesh.local/ns/bookinfo/sa/bookinfo-gateway"),
    ],
)
def test_kuma_permissions_admit_the_gateway(application: Application, form: str, policies: str, name: str) -> None:
    """With mutual TLS the gateway has an identity of its own, and a probe shows that productpage accepts it."""
    folders = [KUMA / form, KUMA / policies]
    entered = entered_by("kuma", folders, application)
    read = read_policies("kuma", folders, entered)
    assert read.identities(entered)["bookinfo-gateway"][0] == name
    probes = [probe for probe in read.probes(entered) if probe.caller == "bookinfo-gateway"]
    assert [(probe.workload, probe.status) for probe in probes] == [("productpage", 200)]


@pytest.mark.parametrize(
    ("form", "old", "new", "expected"),
    [
        (
            "gateway",
            "productpage_bookinfo_svc_9080",
            "productpge_bookinfo_svc_9080",
            "backends[0].destination.kuma.io/service: there is no service 'productpge_bookinfo_svc_9080'; did you mean",
        ),
        (
            "gateway",
            "  selectors:\n    - match:\n        kuma.io/service: gateway_bookinfo_svc\n  conf:\n    http",
            "  selectors:\n    - match:\n        kuma.io/service: door_bookinfo_svc\n  conf:\n    http",
            "no MeshGateway is for 'door_bookinfo_svc'",
        ),
        (
            "gateway",
            "  name: gateway\n  labels:\n    kuma",
            "  name: door\n  labels:\n    kuma",
            "no MeshGatewayInstance is of 'gateway_bookinfo_svc'; did",
        ),
        ("gateway", "protocol: HTTP", "protocol: TCP", "spec.conf.listeners[0].protocol"),
        ("gateway", "serviceType: ClusterIP", "serviceType: LoadBalancer", "spec.serviceType"),
        ("gateway", "serviceAccountName: bookinfo-gateway", "serviceAccountName: door", "no ServiceAccount 'door'"),
        ("gateway-delegated", "kuma.io/gateway: enabled", "kuma.io/gateway: builtin", "must have exactly these"),
        (
            "gateway-delegated",
            "address: productpage, port_value",
            "address: productpge, port_value",
            "address.socket_address: there is no service 'productpge'; did you mean productpage?",
        ),
        (
            "gateway-delegated",
            "address: productpage, port_value",
            "address: productpge, port_value",
            "envoy.yaml:55: static_resources.clusters[0]",
        ),
        ("gateway-delegated", "port_value: 9080", "port_value: 9081", "productpage has no port 9081"),
        (
            "gateway-delegated",
            "{address: 127.0.0.1, port_value: 9900}",
            "{}",
            "admin: must have an address with a port",
        ),
        ("gateway-delegated", "port_value: 8080", "port_value: 8081", "no listener at port 8080"),
        ("gateway-delegated", "{cluster: productpage}", "{cluster: reviewers}", "did you mean reviews?"),
        ("gateway-delegated", "--config-path", "--config-yaml", "must begin with --config-path"),
        ("gateway-delegated", "    admin:\n", "    admin: &anchor\n", "envoy.yaml:8"),
    ],
)
def test_reports_inconsistent_kuma_gateway(
    application: Application, tmp_path: Path, form: str, old: str, new: str, expected: str
) -> None:
    """Routes to missing objects, and unmatched parts, each with file and line."""
    assert expected in problems(changed(tmp_path, {old: new}, source=KUMA / form), application, "kuma")


def test_refuses_built_in_gateway_with_mesh_services(application: Application) -> None:
    """A MeshGatewayRoute names services by their tags."""
    with pytest.raises(InputError, match=r"with meshServices\.mode Disabled only"):
        read_gateway("kuma", [KUMA / "gateway", KUMA / "mtls"], application)


def test_refuses_two_gateways(application: Application) -> None:
    """A configuration has one gateway."""
    with pytest.raises(InputError, match="a built-in one, or a delegated one"):
        read_gateway("kuma", [KUMA / "gateway", KUMA / "gateway-delegated"], application)


@pytest.mark.parametrize(("mesh", "folder"), [("istio", KUMA / "gateway"), ("kuma", ISTIO)])
def test_refuses_gateway_of_the_other_mesh(application: Application, mesh: str, folder: Path) -> None:
    """It would have no effect, or another one."""
    with pytest.raises(InputError, match="is not of this configuration's mesh"):
        read_gateway(mesh, [folder], application)


# --- policies ------------------------------------------------------------------------------------------------


def test_istio_policies_apply_to_the_gateway(application: Application) -> None:
    """allow-nothing closes it, gateway-viewer opens it, and mutual TLS of the mesh requires nothing of its clients."""
    folders = [ISTIO, ISTIO.with_name("policies"), ISTIO.with_name("gateway-policies")]
    entered = entered_by("istio", folders, application)
    policies = read_policies("istio", folders, entered)
    probes = [one for one in policies.probes(entered) if one.workload == "gateway"]
    assert {one.caller for one in probes} == {None}
    expected = {(one.policy, one.method, one.path, one.status) for one in probes}
    assert ("allow-nothing", "POST", "/productpage", 403) in expected
    assert ("gateway-viewer rule 0", "GET", "/productpage", 200) in expected
    assert ("gateway-viewer rule 1", "POST", "/login", 302) in expected
    assert "default" not in {one.policy for one in probes}
    assert policies.mode(entered.workload("gateway")) == "DISABLE"


def test_refuses_policies_that_close_the_gateway(application: Application) -> None:
    """No page would pass; the error comes before anything starts."""
    folders = [ISTIO, ISTIO.with_name("policies")]
    entered = entered_by("istio", folders, application)
    with pytest.raises(InputError, match=r"allow-nothing.yaml:.*denies every page at the gateway"):
        read_policies("istio", folders, entered)
