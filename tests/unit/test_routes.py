"""Routes to versions: read strictly, with the same meaning in both meshes, and refused without effect."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.application.model import Hop
from bench.errors import InputError, Problem
from bench.files.folders import find_shipped
from bench.files.yaml_source import read_documents
from bench.meshes.resolved import find_problems, resolve_file
from bench.meshes.routing import Condition, Destination, Route, clusters_to, find_route, list_users
from bench.meshes.user_groups import UserGroup, user_groups_of
from bench.results.samples import RAW_ROW, Samples, make_samples
from bench.targets.cluster.probes.prober import question_json
from bench.verification.checks import mesh_checks
from bench.verification.counts import clusters_of, count_expected_requests
from bench.verification.evidence import HopCount, counted_evidence, pages_evidence
from bench.verification.prober import Topic
from bench.verification.prover import SERIES
from bench.verification.questions import Answer
from tests.applications import BOOKINFO
from tests.policies import read_policies
from tests.sidecars import VERSIONS, application_with, bootstrap_of, configuration_with

MANIFESTS = find_shipped("manifests")
ALL = application_with(*VERSIONS)
FOLDERS = {
    "istio": ("istio/deployment-strategy",),
    "kuma": ("kuma/mtls", "kuma/deployment-strategy"),
}
MARCO, OTHERS = UserGroup("Marco", {"reviews": "v2"}), UserGroup("", {"reviews": "v1"})

RULE = (
    "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: reviews}\nspec:\n"
    "  host: reviews\n  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}},"
    " {name: v9, labels: {version: v9}}]\n"
)
VIRTUAL = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: reviews}\nspec:\n"
ROUTE = "apiVersion: kuma.io/v1alpha1\nkind: MeshHTTPRoute\nmetadata: {name: reviews}\nspec:\n"


def to(subset: str, host: str = "reviews") -> str:
    return f"route: [{{destination: {{host: {host}, subset: {subset}}}}}]"


def virtual(*routes: str, hosts: str = "reviews") -> str:
    """A VirtualService whose routes begin on line 6."""
    return VIRTUAL + f"  hosts: [{hosts}]\n  http:\n" + "".join(f"  - {{{route}}}\n" for route in routes)


def mesh_route(*rules: str, service: str = "reviews") -> str:
    """A MeshHTTPRoute of productpage, whose rules begin on line 8."""
    head = ROUTE + "  targetRef: {kind: Dataplane, labels: {app: productpage}}\n  to:\n"
    target = f"  - targetRef: {{kind: MeshService, name: {service}}}\n    rules:\n"
    return head + target + "".join(f"    - {{{rule}}}\n" for rule in rules)


def rule(backend: str, match: str = "path: {type: PathPrefix, value: /}", more: str = "") -> str:
    return f"matches: [{{{match}}}], default: {{backendRefs: [{{kind: MeshService, name: {backend}{more}}}]}}"


def routes_in(mesh: str, *texts: str, folder: Path) -> tuple[Route, ...]:
    """The routes of productpage's requests to reviews."""
    for number, text in enumerate(texts):
        (folder / f"{number}.yaml").write_text(text, "utf-8")
    base = [MANIFESTS / "kuma/mtls"] if mesh == "kuma" else []
    policies = read_policies(mesh, [*base, folder], ALL)
    reviews = ALL.service("reviews")
    return policies.routes(ALL, caller=ALL.workload("productpage"), service=reviews)


def list_problems(mesh: str, *texts: str, folder: Path) -> list[str]:
    """What reading the manifests complains about, without the folder's name."""
    with pytest.raises(InputError) as caught:
        routes_in(mesh, *texts, folder=folder)
    return [str(problem).replace(f"{folder}/", "") for problem in caught.value.problems]


def shipped_readers(mesh: str) -> tuple[UserGroup, ...]:
    policies = read_policies(mesh, [MANIFESTS / folder for folder in FOLDERS[mesh]], ALL)
    return user_groups_of(policies, ALL)


# --- the application -----------------------------------------------------------------------------------------


def test_versions_have_own_names_and_services() -> None:
    """Each version is a workload and a Service in addition to the common one; only those with stars call ratings."""
    assert {one.name for one in ALL.workloads if one.app == "reviews"} == {f"reviews-{version}" for version in VERSIONS}
    assert [one.name for one in ALL.service("reviews").workloads] == [f"reviews-{version}" for version in VERSIONS]
    assert [one.version for one in ALL.service("reviews-v2").workloads] == ["v2"]
    assert {caller for caller, called in ALL.calls if called == "ratings"} == {"reviews-v2", "reviews-v3"}
    assert {one.name for one in application_with("v1", "v2").services} >= {"reviews-v1", "reviews-v2"}
    assert "reviews-v3" not in {one.name for one in application_with("v1", "v2").services}


# --- what routes mean ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mesh", FOLDERS)
def test_shipped_routes_give_marco_v2_and_others_v1(mesh: str) -> None:
    """Both meshes' manifests have the same routes."""
    assert shipped_readers(mesh) == (OTHERS, MARCO)


@pytest.mark.parametrize("mesh", FOLDERS)
def test_shipped_routes_become_envoy_routes(mesh: str) -> None:
    """The sidecar of productpage distinguishes the versions by header; the first route is the narrow one."""
    policies = read_policies(mesh, [MANIFESTS / folder for folder in FOLDERS[mesh]], ALL)
    bootstrap = bootstrap_of(mesh, "productpage", ALL, policies)
    hosts = [host for host in found_in(bootstrap, "virtual_hosts") if host["name"].startswith(HOST[mesh])]
    (host,) = hosts
    headers = [route["match"].get("headers") for route in host["routes"]]
    assert headers == [[{"name": "end-user", "string_match": {"exact": "Marco"}}], None]
    clusters = {cluster["name"]: cluster for cluster in bootstrap["static_resources"]["clusters"]}
    targets = [clusters[route["route"]["cluster"]]["load_assignment"]["endpoints"] for route in host["routes"]]
    assert [len(target[0]["lb_endpoints"]) for target in targets] == [1, 1]
    assert targets[0] != targets[1]


HOST = {"istio": "reviews.bookinfo.svc", "kuma": "default_reviews_bookinfo"}


def found_in(value: Any, key: str) -> list[Any]:
    """All values in lists of this name."""
    if isinstance(value, dict):
        return [*value.get(key, []), *(one for part in value.values() for one in found_in(part, key))]
    return [one for part in value for one in found_in(part, key)] if isinstance(value, list) else []


def test_kuma_routes_apply_to_one_caller() -> None:
    """Only the sidecars that `targetRef` selects have the routes; the load's has the common Service."""
    policies = read_policies("kuma", [MANIFESTS / folder for folder in FOLDERS["kuma"]], ALL)
    (way,) = policies.routes(ALL, caller=ALL.client, service=ALL.service("reviews"))
    (to,) = way.destinations
    assert (to.cluster, len(to.workloads)) == ("default_reviews_bookinfo_default_msvc_9080", 3)


def test_first_matching_route_applies() -> None:
    """Paths match exactly or by prefix, headers likewise; all conditions of a route must hold."""
    service = ALL.service("reviews")
    to = (Destination("a", service, ()),)
    exact = Route(to, path=Condition("exact", "/health"))
    prefix = Route(to, headers=(("end-user", Condition("prefix", "Mar")),))
    both = Route(to, path=Condition("prefix", "/rev"), headers=(("end-user", Condition("exact", "Ann")),))
    every = (exact, prefix, both)
    assert list_users(every, ALL) == ("", "Mar", "Ann")
    assert find_route(every, ALL, path="/health", user="Marco") is exact
    assert find_route(every, ALL, path="/reviews/0", user="Marco") is prefix
    assert find_route(every, ALL, path="/reviews/0", user="Ann") is both
    assert find_route(every, ALL, path="/other", user="Ann") is None
    assert find_route(every, ALL, path="/reviews/0") is None


def test_kuma_sorts_routes_by_specificity(tmp_path: Path) -> None:
    """An exact path before headers, headers before everything; unmatched requests go to the common Service."""
    header = "headers: [{name: end-user, value: Marco}]"
    path = "path: {type: Exact, value: /reviews/0}"
    ways = routes_in("kuma", mesh_route(rule("reviews-v2", header), rule("reviews-v3", path)), folder=tmp_path)
    targets = [target for way in ways for target in way.destinations]
    assert [len(target.workloads) for target in targets] == [1, 1, 3]
    assert [target.service.name for target in targets] == ["reviews-v3", "reviews-v2", "reviews"]


def test_workload_has_clusters_of_its_routes(tmp_path: Path) -> None:
    """Requests to a version are counted in the clusters that lead there, and in no other."""
    marco = "match: [{headers: {end-user: {exact: Marco}}}], "
    ways = routes_in("istio", RULE, virtual(marco + to("v2"), to("v1")), folder=tmp_path)
    name = "outbound|9080|v2|reviews.bookinfo.svc.cluster.local"
    assert clusters_to(ways, ALL.workload("reviews-v2")) == (name,)
    assert clusters_to(ways, ALL.workload("reviews-v3")) == ()


@pytest.mark.parametrize(
    ("mesh", "cluster"),
    [
        ("istio", "outbound|9080|{version}|reviews.run-1.svc.cluster.local"),
        ("kuma", "default_reviews-{version}_run-1_default_msvc_9080"),
    ],
)
def test_versions_are_counted_by_their_route_on_a_cluster(mesh: str, cluster: str) -> None:
    """In a run's own namespace, too; a version without a route has no cluster, and every question finds its host."""
    scene = configuration_with(mesh, *FOLDERS[mesh], reviews=VERSIONS, namespace="run-1")
    assert scene.groups == (OTHERS, MARCO)
    found = {version: clusters_of(scene, Hop("productpage", f"reviews-{version}"))[0] for version in VERSIONS}
    assert found == {"v1": (cluster.format(version="v1"),), "v2": (cluster.format(version="v2"),), "v3": ()}
    own = {name: (spiffe_id,) for name, spiffe_id in scene.ids.items()}
    checks = mesh_checks(scene, own, {Topic.CALLER_CERTIFICATES})
    asked = [question_json(check.question, scene.deployed) for check in checks]
    paths = {question["path"] for question in asked if question["host"].startswith("reviews-v2")}
    assert "/reviews/0" in paths


# --- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            virtual(to("v9")),
            (
                "1.yaml:7: spec.http[0].route[0].destination.subset: reviews with version v9 is not"
                " deployed; deployed is v1, v2, v3 (application.versions.reviews)"
            ),
        ),
        (
            virtual(to("v4")),
            (
                "1.yaml:7: spec.http[0].route[0].destination.subset: no DestinationRule defines the subset"
                " 'v4' of reviews; known: v1, v2, v9"
            ),
        ),
        (
            virtual(to("v1", "review")),
            ("1.yaml:7: spec.http[0].route[0].destination.host: there is no service 'review'; did you mean reviews?"),
        ),
        (
            virtual(to("v1"), hosts="reviews.other"),
            ("1.yaml:5: spec.hosts[0]: there is no service 'reviews.other'; did you mean reviews?"),
        ),
        (
            virtual("route: [{destination: {host: reviews, port: {number: 80}}}]"),
            ("1.yaml:7: spec.http[0].route[0].destination.port.number: reviews has port 9080 only"),
        ),
        (
            virtual("route: [{destination: {host: reviews, subset: v1}}, {destination: {host: reviews, subset: v2}}]"),
            "1.yaml:7: spec.http[0]: one of several destinations must have a weight",
        ),
        (
            virtual("rewrite: {uri: /}, " + to("v1")),
            ("1.yaml:7: spec.http[0].rewrite: is not translated for this machine"),
        ),
        (
            virtual("timeout: 1 second, " + to("v1")),
            (
                "1.yaml:7: spec.http[0].timeout: '1 second' is not a duration; write numbers with units, such as 3s,"
                " 500ms or 1m30s"
            ),
        ),
        (
            virtual("fault: {}, " + to("v1")),
            "1.yaml:7: spec.http[0].fault: must have delay or abort",
        ),
        (
            virtual("match: [{headers: {end-user: {regex: M.*}}}], " + to("v1")),
            ("1.yaml:7: spec.http[0].match[0].headers.end-user.regex: is not translated for this machine"),
        ),
        (
            virtual("match: [{}], " + to("v1")),
            ("1.yaml:7: spec.http[0].match[0]: must name uri or headers; leave `match` out for every request"),
        ),
        (
            virtual(to("v1"), to("v2")),
            ("1.yaml:8: spec.http[1]: no request of the application could prove that this route works"),
        ),
        (
            virtual("match: [{headers: {x-colour: {exact: red}}}], " + to("v1"), to("v2")),
            ("1.yaml:7: spec.http[0]: no request of the application could prove that this route works"),
        ),
        (
            virtual(to("v1")).replace("{name: reviews}", "{name: reviews, namespace: istio-system}"),
            ("1.yaml:3: metadata.namespace: no workload runs in 'istio-system'; known: bookinfo"),
        ),
        (
            virtual(to("v1")) + "---\n" + virtual(to("v2")).replace("name: reviews}", "name: other}"),
            ("1.yaml:13: spec.hosts[0]: the VirtualService in 1.yaml:1 is for the same host"),
        ),
    ],
)
def test_reports_error_in_istio_routes_with_line(text: str, message: str, tmp_path: Path) -> None:
    """Missing, unsupported, unreachable and conflicting parts."""
    assert list_problems("istio", RULE, text, folder=tmp_path)[0] == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            mesh_route(rule("reviews-v4")),
            (
                "0.yaml:9: spec.to[0].rules[0].default.backendRefs[0].name: there is no"
                " service 'reviews-v4'; deployed of reviews is v1, v2, v3 (application.versions.reviews)"
            ),
        ),
        (
            mesh_route(rule("reviews-v1"), service="review"),
            ("0.yaml:7: spec.to[0].targetRef.name: there is no service 'review'; did you mean reviews?"),
        ),
        (
            mesh_route(rule("reviews-v1", more=", port: 80")),
            ("0.yaml:9: spec.to[0].rules[0].default.backendRefs[0].port: reviews-v1 has port 9080 only"),
        ),
        (
            mesh_route(rule("reviews-v1", "path: {type: PathPrefix, value: /reviews}")),
            (
                "0.yaml:9: spec.to[0].rules[0]"
                ".matches[0].path.value: a prefix other than / is not translated by meshbench"
            ),
        ),
        (
            mesh_route(rule("reviews-v1", more=", weight: 1")),
            ("0.yaml:9: spec.to[0].rules[0].default.backendRefs[0].weight: is not translated for this machine"),
        ),
        (
            mesh_route(rule("reviews-v1"), rule("reviews-v2")),
            ("0.yaml:10: spec.to[0].rules[1]: no request of the application could prove that this route works"),
        ),
        (
            mesh_route(rule("reviews-v1")).replace("productpage", "page"),
            ("0.yaml:5: spec.targetRef.labels: selects no workload of the application"),
        ),
    ],
)
def test_reports_error_in_kuma_routes_with_line(text: str, message: str, tmp_path: Path) -> None:
    """The same for MeshHTTPRoute."""
    assert list_problems("kuma", text, folder=tmp_path)[0] == message


def test_route_to_mesh_services_needs_them(tmp_path: Path) -> None:
    """Kuma ignores the route unless the Mesh's MeshServices are exclusive."""
    (tmp_path / "a.yaml").write_text(mesh_route(rule("reviews-v1")), "utf-8")
    with pytest.raises(InputError, match=r"a\.yaml:2: kind: a route to MeshServices has no effect without a Mesh"):
        read_policies("kuma", [tmp_path], ALL)


def scenario(folder: Path, configuration: str, reviews: str = "[v1, v2, v3]") -> Path:
    file = folder / "mine.yaml"
    file.write_text(
        "schema_version: 1\nname: mine\ntitle: Mine\n"
        f"application: {{reviews: {reviews}}}\nconfigurations:\n  - {configuration}\n",
        "utf-8",
    )
    return file


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        (
            "{name: baseline, mesh: none}",
            (
                "reviews v1, v2, v3 are deployed, and without a mesh there are no routes;"
                " hint: deploy one version, or name a mesh"
            ),
        ),
        (
            "{name: istio, mesh: istio}",
            ("reviews v1, v2, v3 are deployed, and no route selects the one for the requests of users without a login"),
        ),
        (
            "{name: mine, mesh: istio, manifests: [mine]}",
            ("no route matches the requests of users without a login; hint: add one without conditions"),
        ),
    ],
)
def test_refuses_ambiguous_version(configuration: str, message: str, tmp_path: Path) -> None:
    """Pages of several versions, mixed at random, are no measurement: refused with the configuration's line."""
    (tmp_path / "mine").mkdir()
    marco = "match: [{headers: {end-user: {exact: Marco}}}], "
    (tmp_path / "mine/routes.yaml").write_text(RULE + "---\n" + virtual(marco + to("v2")), "utf-8")
    (problem,) = find_problems(scenario(tmp_path, configuration))
    assert (problem.line, problem.path, problem.message) == (6, "configurations[0]", message)


def list_obstacles(file: Path) -> tuple[Problem, ...]:
    """Why this machine does not take a scenario."""
    return resolve_file(file).list_local_obstacles()


def test_route_to_missing_version_is_not_translated(tmp_path: Path) -> None:
    """With reviews v1 and v3, or v3 alone, the shipped routes to v2 have no destination, in both meshes."""
    for reviews, deployed in (("[v1, v3]", "v1, v3"), ("v3", "v3")):
        istio = list_obstacles(
            scenario(tmp_path, "{name: a, mesh: istio, manifests: [istio/deployment-strategy]}", reviews)
        )
        assert istio[0].message.startswith(
            f"reviews with version v2 is not deployed; deployed is {deployed} (application.versions.reviews);"
        )
        manifests = "[kuma/mtls, kuma/deployment-strategy]"
        kuma = list_obstacles(scenario(tmp_path, f"{{name: a, mesh: kuma, manifests: {manifests}}}", reviews))
        there = f"there is no service 'reviews-v2'; deployed of reviews is {deployed} (application.versions.reviews)"
        assert kuma[0].message.startswith(there)
        for problem in (istio[0], kuma[0]):
            (document,) = read_documents(Path(problem.file))
            assert problem.line in document.lines.values()


@pytest.mark.parametrize("reviews", ["[]", "[v1, v1]", "[v1, v4]", "[[v1]]", "7"])
def test_refuses_invalid_list_of_versions(reviews: str, tmp_path: Path) -> None:
    """An empty list, a repeated version and an unknown one are refused at their line."""
    (problem,) = find_problems(scenario(tmp_path, "{name: a, mesh: none}", reviews))
    assert (problem.line, problem.path) == (4, "application.versions.reviews")


# --- what is proven ------------------------------------------------------------------------------------------


def samples(**counts: int) -> Samples:
    """Requests by name, with underscores for spaces."""
    rows = np.zeros(sum(counts.values()), RAW_ROW)
    rows["name"] = np.repeat(np.arange(len(counts)), list(counts.values()))
    return make_samples(rows, tuple(name.replace("_", " ") for name in counts))


def test_hop_counts_requests_of_its_user_groups() -> None:
    """Logins end at productpage, pages go to the version of their user group, and no request to one without users."""
    load = samples(login=2, page_as_others=30, page_as_Marco=10)
    expected = count_expected_requests(ALL, readers=(OTHERS, MARCO), samples=load)
    assert {str(hop): count for hop, count in expected.items()} == {
        "locust -> productpage": 42,
        "productpage -> details": 40,
        "productpage -> reviews-v1": 30,
        "productpage -> reviews-v2": 10,
        "productpage -> reviews-v3": 0,
        "reviews-v2 -> ratings": 10,
        "reviews-v3 -> ratings": 0,
    }
    counts = {hop: HopCount(count, 10 if hop.callee == "ratings" else count) for hop, count in expected.items()}
    assert all(fact.ok for fact in counted_evidence(counts, requests=expected, errors=0))
    astray = {**counts, Hop("productpage", "reviews-v3"): HopCount(1, 1)}
    failed = [fact.subject for fact in counted_evidence(astray, requests=expected, errors=0) if not fact.ok]
    assert failed == ["productpage -> reviews-v3"]


def test_single_version_needs_no_request_names() -> None:
    """A locustfile may choose any names where every user gets the same version."""
    application = application_with("v3")
    readers = user_groups_of(None, application)
    expected = count_expected_requests(application, readers=readers, samples=samples(one=3, other=4))
    assert set(expected.values()) == {7}


def test_reports_one_wrong_page_of_a_hundred() -> None:
    """A series proves only when every page has the version of its user group."""
    stars = {"v1": b"", "v2": b'text-black-500"', "v3": b'text-red-500"'}

    def page(version: str) -> Answer:
        reviews = b" ".join(reviewer + b" " + stars[version] for reviewer in (b"Reviewer1", b"Reviewer2"))
        return Answer(200, b"ISBN-10 PublisherA " + reviews, {})

    assert pages_evidence(BOOKINFO, MARCO, [page("v2")] * SERIES, count=SERIES).ok
    wrong = pages_evidence(BOOKINFO, MARCO, [*[page("v2")] * (SERIES - 1), page("v1")], count=SERIES)
    assert not wrong.ok
    assert wrong.seen.startswith("99 of 100 with reviews v2; page's rows of black stars are not 2")
    assert not pages_evidence(BOOKINFO, OTHERS, [page("v1")] * (SERIES - 1), count=SERIES).ok
