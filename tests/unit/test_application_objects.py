"""An application's own objects as a cluster takes them: every kind of workload, their Services, what is refused."""

import base64
import json
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from bench.application.definition import ApplicationDefinition
from bench.application.model import Application, Hop, Workload, read_application
from bench.application.objects import list_apps, read_own_objects
from bench.errors import InputError
from bench.system.redaction import redact

Object = dict[str, Any]


def make_pods(name: str, kind: str = "Deployment", *ports: int, **more: Any) -> Object:
    """Make a workload with one container that has these ports; `labels` are those of its pods, `containers` further
    ones, `spec` further fields of the workload."""
    containers = [{"name": "main", "image": "x/y", "ports": [{"containerPort": port} for port in ports]}]
    pod = {"metadata": {"labels": more.get("labels", {"app": name})}, "spec": {"containers": containers}}
    pod["spec"]["containers"] += more.get("containers", [])
    pod["spec"] |= more.get("pod", {})
    version = {"Pod": "v1", "Job": "batch/v1"}.get(kind, "apps/v1")
    thing: Object = {"apiVersion": version, "kind": kind, "metadata": {"name": name, **more.get("metadata", {})}}
    if kind == "Pod":
        return {**thing, "metadata": {**thing["metadata"], **pod["metadata"]}, "spec": pod["spec"]}
    return {**thing, "spec": {"template": pod, **more.get("spec", {})}}


def make_service(name: str, *ports: Any, selector: Object | None = None, **more: Any) -> Object:
    """Make a Service of these ports, numbers or mappings."""
    numbered = [port if isinstance(port, dict) else {"port": port} for port in ports]
    metadata = {"name": name, **more.pop("metadata", {})}
    chosen = {"app": name} if selector is None else selector
    spec = {"ports": numbered, "selector": chosen, **more}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def make(kind: str, name: str, version: str = "v1", **more: Any) -> Object:
    """Make any other object."""
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **more}


def define(folder: Path, *things: Object, **keys: Any) -> ApplicationDefinition:
    """Write manifests, and define the application that they are."""
    (folder / "all.yaml").write_text(yaml.safe_dump_all(things), "utf-8")
    return ApplicationDefinition(name="shop", **keys).place(folder)


def read(folder: Path, *things: Object, **keys: Any) -> Application:
    """Read the application of these objects."""
    return read_application(define(folder, *things, **keys))


WEB: Final = (make_pods("web", "Deployment", 8080), make_service("web", 80))


def workload_of(application: Application, name: str) -> Workload:
    return application.workload(name)


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet", "Pod"])
def test_reads_workloads_of_every_kind(tmp_path: Path, kind: str) -> None:
    """Whatever makes the pods, the workload has their labels, the default account, and the port of the Service."""
    things = (make_pods("web", kind, 9000, 8080), make_service("web", {"port": 80, "targetPort": 8080}))
    (found,) = read(tmp_path, *things).workloads
    assert (found.name, found.kind, found.manifest) == ("web", kind, "web")
    assert (found.version, found.account, found.port, dict(found.labels)) == ("", "default", 8080, {"app": "web"})


def test_a_job_is_no_workload_under_load(tmp_path: Path) -> None:
    """A Job completes before the load; its image can be replaced all the same."""
    things = (*WEB, make_pods("seed", "Job", labels={}))
    assert [one.name for one in read(tmp_path, *things).workloads] == ["web"]
    assert list_apps(define(tmp_path, *things)) == ("web", "seed")


def test_names_a_workload_without_labels_by_its_manifest(tmp_path: Path) -> None:
    """Neither `app` nor `version` is needed; a Service may select by any label, under any name, at a named port."""
    labels = {"app.kubernetes.io/name": "front"}
    pods = make_pods("front", labels=labels, containers=[{"name": "b", "ports": [{"containerPort": 7, "name": "web"}]}])
    service = make_service("shop", {"port": 80, "targetPort": "web"}, selector=labels)
    application = read(tmp_path, pods, service, ready={"path": "/a", "status": 201})
    (found,) = application.workloads
    assert (found.name, found.app, found.port) == ("front", "front", 7)
    assert (application.definition.entry, application.hops) == ("shop:80", (Hop("locust", "front"),))
    assert application.called_as(found).name == "shop"
    assert (application.path_of("front"), application.status_of("front")) == ("/a", 201)


def test_calls_name_services_or_workloads(tmp_path: Path) -> None:
    """Who calls whom is said by the names that the application uses, which are those of its Services."""
    selector = {"run": "api"}
    api = (make_pods("api-server", "Deployment", 1, labels=selector), make_service("api", 1, selector=selector))
    things = (*WEB, *api)
    application = read(tmp_path, *things, entry="web:80", calls={"web": ("api",)})
    assert application.hops == (Hop("locust", "web"), Hop("web", "api-server"))
    assert application.status_of("api-server") is None
    with pytest.raises(InputError, match="no workload of apii; did you mean api"):
        read(tmp_path, *things, entry="web:80", calls={"web": ("apii",)})


def test_names_workloads_of_one_app_differently(tmp_path: Path) -> None:
    """By their version, by their manifest, or by their kind, whichever differs."""
    app = {"app": "web"}
    things = [make_pods(f"web-{one}", "Deployment", 1, labels={**app, "version": one}) for one in ("v1", "v2")]
    things += [make_pods("same", kind, 1, labels={"app": "db"}) for kind in ("Deployment", "StatefulSet")]
    things += [make_pods(name, "Deployment", 1, labels={"app": "job"}) for name in ("one", "two")]
    application = read(tmp_path, *things, make_service("web", 1))
    names = ["web-v1", "web-v2", "same-deployment", "same-statefulset", "one", "two"]
    assert [one.name for one in application.workloads] == names
    assert application.hops == (Hop("locust", "web-v1"), Hop("locust", "web-v2"))
    assert {application.called_as(one).name for one in application.workloads[:2]} == {"web"}
    assert application.find_service(application.workload("one")) is None


def test_prefers_the_entry_and_http_among_several_ports(tmp_path: Path) -> None:
    """Of a Service with several ports the load's is the first, else one that is declared to speak HTTP."""
    ports = [{"port": 9, "name": "tcp-admin"}, {"port": 80, "name": "http-web"}, {"port": 81, "appProtocol": "https"}]
    things = (make_pods("web", "Deployment", 9, 80, 81), make_service("web", *ports))
    assert read(tmp_path, *things, entry="web:81").front.ports == (81, 80, 9)
    assert workload_of(read(tmp_path, *things, entry="web:81"), "web").port == 81
    (service,) = read(tmp_path, *things, entry="web:80").services
    assert service.ports == (80, 9, 81)
    with pytest.raises(InputError, match="name where the load enters: web:9, web:80, web:81"):
        read(tmp_path, *things)


def test_passes_other_services_and_kinds_on(tmp_path: Path) -> None:
    """Headless Services, those without a selector or ports, and kinds that a run does not know are applied."""
    things = (
        *WEB,
        make_service("headless", 80, selector={"app": "web"}, clusterIP="None"),
        make_service("outside", selector={}, type="ExternalName", externalName="example.org"),
        make("NetworkPolicy", "deny", "networking.k8s.io/v1", spec={"podSelector": {}}),
        make("PodDisruptionBudget", "one", "policy/v1", spec={"minAvailable": 1}),
        make("Certificate", "cert", "cert-manager.io/v1", spec={}),
        make("Secret", "key", data={}),
    )
    application = read(tmp_path, *things, entry="web:80")
    assert [one.name for one in application.services] == ["web", "headless"]
    assert all(application.deploys(thing) for thing in things)


def test_lists_what_is_left_out(tmp_path: Path) -> None:
    """A run has namespaces of its own, and takes requests of no other host: both kinds are left out, and listed."""
    things = (*WEB, make("Namespace", "shop"), make("Ingress", "web", "networking.k8s.io/v1"))
    application = read(tmp_path, *things)
    reasons = [str(one) for one in application.left_out]
    assert [one.partition(" ")[2] for one in reasons] == [
        "Namespace shop is not applied: a run makes namespaces of its own",
        (
            "Ingress web is not applied: it would take requests of others to the run; the load enters at the"
            " application's entry"
        ),
    ]
    assert len(read_own_objects(define(tmp_path, *things)).documents) == 2


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (
            make("HorizontalPodAutoscaler", "web", "autoscaling/v2"),
            "would change the number of replicas while they are",
        ),
        (make("CronJob", "clean", "batch/v1"), "kind: CronJob clean would start pods while others are measured"),
        (make("ClusterRole", "all", "rbac.authorization.k8s.io/v1"), "kind: ClusterRole all is of the whole cluster"),
        (make("CustomResourceDefinition", "a", "apiextensions.k8s.io/v1"), "is of the whole cluster"),
        (make("ServiceAccount", "default"), "metadata.name: ServiceAccount default is in every namespace"),
        (
            {"apiVersion": "v1", "kind": "Secret", "metadata": {}},
            "metadata.name: is missing; every object needs a name",
        ),
        ({"a": 1}, "is not a Kubernetes object"),
        (make_pods("a", pod={"containers": []}), "spec.template.spec.containers: must have at least 1 entry"),
        (make_pods("a", pod={"serviceAccountName": "b"}), "serviceAccountName: no ServiceAccount 'b'"),
        (
            make_pods("a", labels={"version": 1}),
            "spec.template.metadata.labels.version: must be text, but YAML reads 1",
        ),
        (make_service("web", 80), "metadata.name: Service web is already in"),
        (make_service("a", {"port": "x"}), "spec.ports[0].port: "),
        ({**make("Role", "a"), "metadata": {"name": "a", "namespace": "b"}}, "'b' is none of the application's"),
    ],
)
def test_refuses_with_line_and_reason(tmp_path: Path, thing: Object, message: str) -> None:
    """What a run cannot apply is an error with file, line and reason."""
    with pytest.raises(InputError) as raised:
        read(tmp_path, *WEB, thing, namespaces=("default",))
    (problem,) = raised.value.problems
    assert message in str(problem)
    assert problem.line > 0


def test_takes_the_namespaces_that_manifests_name(tmp_path: Path) -> None:
    """Those need not be given: each named one is the application's, `default` is that of objects that name none."""
    shop = {"metadata": {"namespace": "shop"}}
    things = (make_pods("web", "Deployment", 1, **shop), make_service("web", 1, **shop))
    application = read(tmp_path, *things)
    assert (application.namespace, application.spaces) == ("shop", ("shop",))
    both = read(tmp_path, *things, make_pods("api", "Deployment", 1), make_service("api", 1), entry="web:1")
    assert both.spaces == ("default", "shop")
    assert [both.namespace_of(one) for one in both.workloads] == ["shop", "default"]
    assert [one.identity for one in both.workloads] == ["shop/default", "default"]


def test_refuses_services_of_one_name_in_two_namespaces(tmp_path: Path) -> None:
    """A run knows Services by their names."""
    other = {"metadata": {"namespace": "other"}}
    things = (*WEB, make_pods("web", "Deployment", 1, **other), make_service("web", 1, **other))
    with pytest.raises(InputError, match="Services of two namespaces are called web"):
        read(tmp_path, *things, entry="web:80")


def test_no_log_shows_the_value_of_a_secret(tmp_path: Path) -> None:
    """Values are redacted as they are written, decoded, and inside of the credentials of a registry."""
    credentials = json.dumps({"auths": {"registry.example": {"password": "hunter2-Hunter2-hunter2"}}})
    encoded = base64.b64encode(b"s3cr3t-T0ken-of-db").decode()
    things = (
        make("Secret", "db", data={"token": encoded, "config": base64.b64encode(credentials.encode()).decode()}),
        make("Secret", "plain", stringData={"key": "Pl4in-K3y-of-Text"}),
        make("Secret", "broken", data={"key": "%%%"}),
    )
    read(tmp_path, *WEB, *things)
    for value in ("s3cr3t-T0ken-of-db", encoded, "hunter2-Hunter2-hunter2", "Pl4in-K3y-of-Text"):
        assert value not in redact(f"the program printed {value} at its start")
