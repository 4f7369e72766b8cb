"""Istio's traffic policies: weights, timeouts, retries, faults, connection pools, as istiod translates them.

What istiod makes of each is read from its source, `pilot/pkg/networking/core` of istio/istio: `route/route.go`,
`route/retry/retry.go`, `cluster_builder.go`, `cluster_traffic_policy.go` and `cluster_tls.go`.
"""

from pathlib import Path
from typing import Any

import pytest

from bench.application.model import Application
from bench.errors import InputError
from bench.files.folders import find_shipped
from bench.meshes.istio.policy_model import IstioPolicies, read_gateway
from bench.meshes.istio.routing import destination_rule_of
from bench.meshes.routing import clusters_to
from bench.meshes.user_groups import UserGroup, user_groups_of
from tests.policies import parse_folders, read_istio
from tests.sidecars import application_with, bootstrap_of, configuration_with

ONE, BOTH = application_with("v3"), application_with("v1", "v2")
SUBSETS = """apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
"""
CANARY = "route: [{destination: {host: reviews, subset: v1}, weight: 90}, {destination: {host: reviews, subset: v2}%s}]"
PEER = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: one}\n"
ANY_REVIEWS = "outbound|9080||reviews.bookinfo.svc.cluster.local"
V1, V2 = (ANY_REVIEWS.replace("||", f"|{one}|") for one in ("v1", "v2"))


def virtual(*rules: str) -> str:
    head = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: canary}\n"
    return f"{head}spec:\n  hosts: [reviews]\n  http:\n" + "".join(f"    - {{{one}}}\n" for one in rules)


def rule(spec: str, name: str = "one") -> str:
    return f"apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"


def read(folder: Path, *texts: str, application: Application = ONE) -> IstioPolicies:
    """The policies of some YAML texts, one file each."""
    for number, text in enumerate(texts):
        (folder / f"{number}.yaml").write_text(text, "utf-8")
    return read_istio([folder], application)


def resources_of(policies: IstioPolicies, sidecar: str, application: Application = ONE) -> dict[str, Any]:
    resources: dict[str, Any] = bootstrap_of("istio", sidecar, application, policies)["static_resources"]
    return resources


def cluster_of(policies: IstioPolicies, name: str, sidecar: str = "productpage") -> dict[str, Any]:
    clusters = resources_of(policies, sidecar)["clusters"]
    return next(one for one in clusters if one["name"] == name)


def route_of(policies: IstioPolicies, application: Application = ONE) -> dict[str, Any]:
    """The first route of productpage's sidecar to reviews."""
    manager = resources_of(policies, "productpage", application)["listeners"][0]["filter_chains"][0]["filters"][0]
    hosts = manager["typed_config"]["route_config"]["virtual_hosts"]
    route: dict[str, Any] = next(one for one in hosts if one["name"].startswith("reviews."))["routes"][0]
    return route


# --- routes --------------------------------------------------------------------------------------------------


def test_weights_split_a_route(tmp_path: Path) -> None:
    """Several destinations become weighted clusters, in their order, and name the VirtualService in the operation."""
    route = route_of(read(tmp_path, SUBSETS, virtual(CANARY % ", weight: 10"), application=BOTH), BOTH)
    clusters = [{"name": V1, "weight": 90}, {"name": V2, "weight": 10}]
    assert route["route"]["weighted_clusters"] == {"clusters": clusters}
    assert "cluster" not in route["route"]
    assert route["decorator"] == {"operation": "canary:9080/*"}


@pytest.mark.parametrize("weight", ["", ", weight: 0"])
def test_destination_without_weight_gets_nothing(weight: str, tmp_path: Path) -> None:
    """istiod leaves it out of the weighted clusters; no request is counted there."""
    policies = read(tmp_path, SUBSETS, virtual(CANARY % weight), application=BOTH)
    assert route_of(policies, BOTH)["route"]["cluster"] == V1
    ways = policies.routes(BOTH, caller=BOTH.workload("productpage"), service=BOTH.service("reviews"))
    assert clusters_to(ways, BOTH.workload("reviews-v2")) == ()
    assert user_groups_of(policies, BOTH) == (UserGroup("", {"reviews": "v1"}),)


def test_weight_of_the_only_destination_has_no_effect(tmp_path: Path) -> None:
    """`weight: 100` is the same as none."""
    with_weight = route_of(read(tmp_path, virtual("route: [{destination: {host: reviews}, weight: 100}]")))
    assert with_weight["route"]["cluster"] == ANY_REVIEWS


def test_weights_leave_the_version_to_chance(tmp_path: Path) -> None:
    """A page of either version is complete, and both sides of a hop have to count as many, not a known number."""
    (tmp_path / "0.yaml").write_text(SUBSETS, "utf-8")
    (tmp_path / "1.yaml").write_text(virtual(CANARY % ", weight: 10"), "utf-8")
    scene = configuration_with("istio", tmp_path, reviews=("v1", "v2"))
    assert scene.groups == (UserGroup("", {}, ("reviews",)),)
    assert scene.groups[0].title == "any reviews"
    assert not scene.knows_counts
    assert configuration_with("istio", reviews=("v3",)).knows_counts


def test_timeout_and_retries_replace_the_defaults(tmp_path: Path) -> None:
    """The timeout also limits gRPC; a retry keeps Istio's defaults where the VirtualService has no value."""
    settings = "timeout: 1m30s, retries: {attempts: 3, perTryTimeout: 500ms, retryOn: '5xx, 503,connect-failure'}, "
    action = route_of(read(tmp_path, virtual(settings + "route: [{destination: {host: reviews}}]")))["route"]
    assert (action["timeout"], action["max_grpc_timeout"]) == ("90s", "90s")
    policy = action["retry_policy"]
    assert (policy["num_retries"], policy["per_try_timeout"]) == (3, "0.500s")
    assert policy["retry_on"] == "5xx,connect-failure,retriable-status-codes"
    assert policy["retriable_status_codes"] == [503]
    assert [one["name"] for one in policy["retry_host_predicate"]] == ["envoy.retry_host_predicates.previous_hosts"]
    assert policy["host_selection_retry_max_attempts"] == "5"


def test_no_attempts_means_no_retries(tmp_path: Path) -> None:
    """`attempts: 0` takes the retry policy away."""
    route = route_of(read(tmp_path, virtual("retries: {attempts: 0}, route: [{destination: {host: reviews}}]")))
    assert "retry_policy" not in route["route"]


def test_faults_are_settings_of_their_route(tmp_path: Path) -> None:
    """Shares become parts of a million; a proxy that answers itself leaves the counts of hops open."""
    fault = (
        "fault: {delay: {fixedDelay: 7s, percentage: {value: 0.1}}, abort: {httpStatus: 503, percentage: {value: 10}}}"
    )
    policies = read(tmp_path, virtual(f"{fault}, route: [{{destination: {{host: reviews}}}}]"))
    settings = route_of(policies)["typed_per_filter_config"]["envoy.filters.http.fault"]
    assert settings["@type"] == "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"
    assert settings["delay"] == {"fixed_delay": "7s", "percentage": {"numerator": 1000, "denominator": "MILLION"}}
    assert settings["abort"] == {"http_status": 503, "percentage": {"numerator": 100_000, "denominator": "MILLION"}}
    (way,) = policies.routes(ONE, caller=ONE.workload("productpage"), service=ONE.service("reviews"))
    assert way.answers


def test_gateway_takes_no_settings_of_routes(tmp_path: Path) -> None:
    """What is not translated behind a gateway is an error, never left out."""
    (tmp_path / "0.yaml").write_text(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: entry}\nspec:\n"
        "  hosts: ['*']\n  gateways: [bookinfo-gateway]\n  http:\n"
        "    - {timeout: 1s, route: [{destination: {host: productpage}, weight: 1},"
        " {destination: {host: productpage}}]}\n",
        "utf-8",
    )
    manifests = parse_folders("istio", [find_shipped("manifests") / "istio/gateway", tmp_path], ONE)
    with pytest.raises(InputError) as caught:
        read_gateway(manifests, ONE)
    found = [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]
    assert found == [
        "0.yaml:8: spec.http[0].timeout: is not translated behind a gateway",
        "0.yaml:8: spec.http[0].route: several destinations are not translated behind a gateway",
    ]


# --- clusters ------------------------------------------------------------------------------------------------


def test_connection_pool_limits_callers_and_callee(tmp_path: Path) -> None:
    """Limits are those of the caller's cluster and of the callee's own; others have none."""
    pool = (
        "host: reviews, trafficPolicy: {connectionPool: {tcp: {maxConnections: 100, connectTimeout: 30ms},"
        " http: {http1MaxPendingRequests: 5, http2MaxRequests: 1000, maxRequestsPerConnection: 10, idleTimeout: 1h}}}"
    )
    policies = read(tmp_path, rule(pool))
    config = "/apis/networking.istio.io/v1/namespaces/bookinfo/destination-rule/one"
    for cluster in (cluster_of(policies, ANY_REVIEWS), cluster_of(policies, "inbound|9080||", "reviews")):
        (threshold,) = cluster["circuit_breakers"]["thresholds"]
        assert threshold == {
            "max_connections": 100,
            "max_pending_requests": 5,
            "max_requests": 1000,
            "max_retries": 2**32 - 1,
        }
        assert cluster["connect_timeout"] == "0.030s"
        assert cluster["metadata"]["filter_metadata"]["istio"]["config"] == config
        (options,) = cluster["typed_extension_protocol_options"].values()
        assert options["common_http_protocol_options"] == {"idle_timeout": "3600s", "max_requests_per_connection": 10}
        assert options["explicit_http_config"] == {"http_protocol_options": {}}
    other = cluster_of(policies, ANY_REVIEWS.replace("reviews", "details"))
    assert other["circuit_breakers"]["thresholds"][0]["max_connections"] == 2**32 - 1
    assert "typed_extension_protocol_options" not in other


def test_outlier_detection_is_of_callers_only(tmp_path: Path) -> None:
    """Errors in a row eject an endpoint, success rates never do."""
    detection = (
        "outlierDetection: {consecutive5xxErrors: 5, consecutiveGatewayErrors: 0, interval: 1s, minHealthPercent: 10}"
    )
    policies = read(tmp_path, rule(f"host: reviews, trafficPolicy: {{{detection}}}"))
    cluster = cluster_of(policies, ANY_REVIEWS)
    assert cluster["outlier_detection"] == {
        "enforcing_success_rate": 0,
        "consecutive_5xx": 5,
        "enforcing_consecutive_5xx": 100,
        "consecutive_gateway_failure": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "interval": "1s",
    }
    assert cluster["common_lb_config"] == {"healthy_panic_threshold": {"value": 10}}
    assert "outlier_detection" not in cluster_of(policies, "inbound|9080||", "reviews")


def test_tls_mode_replaces_automatic_mutual_tls(tmp_path: Path) -> None:
    """ISTIO_MUTUAL has one socket for every endpoint, with the names of automatic mutual TLS; DISABLE has none."""
    automatic = cluster_of(IstioPolicies("bookinfo"), ANY_REVIEWS)["transport_socket_matches"][0]["transport_socket"]
    mutual = read(tmp_path, rule("host: reviews, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}"))
    cluster = cluster_of(mutual, ANY_REVIEWS)
    assert cluster["transport_socket"] == automatic
    assert "transport_socket_matches" not in cluster
    plain = read(tmp_path, rule("host: reviews, trafficPolicy: {tls: {mode: DISABLE}}"))
    assert not {"transport_socket", "transport_socket_matches"} & cluster_of(plain, ANY_REVIEWS).keys()
    reviews = ONE.workload("reviews")
    assert (mutual.encrypts(ONE, reviews), plain.encrypts(ONE, reviews)) == (True, False)


def test_closest_rule_of_a_host_applies_alone(tmp_path: Path) -> None:
    """The name before a wildcard, a longer wildcard before a shorter one; rules are not merged."""
    policies = read(
        tmp_path,
        rule("host: '*', trafficPolicy: {loadBalancer: {simple: RANDOM}}", "every"),
        rule("host: '*.bookinfo.svc.cluster.local', trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}", "near"),
        rule("host: ratings, trafficPolicy: {outlierDetection: {}}", "own"),
    )
    found = {one.name: destination_rule_of(policies, ONE, one) for one in ONE.services}
    names = {name: one.metadata.name for name, one in found.items() if one}
    assert names == {"productpage": "near", "details": "near", "reviews": "near", "ratings": "own"}
    assert "transport_socket_matches" in cluster_of(policies, ANY_REVIEWS.replace("reviews", "ratings"))
    assert cluster_of(policies, ANY_REVIEWS)["lb_policy"] == "LEAST_REQUEST"


def test_subset_overrides_fields_of_its_rule(tmp_path: Path) -> None:
    """A subset has the whole field of its own policy, and all other fields of the rule's."""
    spec = (
        "host: reviews, trafficPolicy: {loadBalancer: {simple: RANDOM}, connectionPool: {tcp: {maxConnections: 7}}},"
        " subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}]"
    )
    policies = read(
        tmp_path, rule(spec), virtual("route: [{destination: {host: reviews, subset: v1}}]"), application=BOTH
    )
    clusters = {one["name"]: one for one in resources_of(policies, "productpage", BOTH)["clusters"]}
    assert [clusters[name]["lb_policy"] for name in (ANY_REVIEWS, V1)] == ["RANDOM", "ROUND_ROBIN"]
    limits = [clusters[name]["circuit_breakers"]["thresholds"][0]["max_connections"] for name in (ANY_REVIEWS, V1)]
    assert limits == [7, 7]


def test_mode_of_a_port_has_a_bare_number(tmp_path: Path) -> None:
    """YAML reads 9080 as a number, Kubernetes as the key of a mapping."""
    spec = "selector: {matchLabels: {app: ratings}}, mtls: {mode: STRICT}, portLevelMtls: {9080: {mode: PERMISSIVE}}"
    policies = read(tmp_path, PEER + f"spec: {{{spec}}}\n")
    assert policies.mode(ONE.workload("ratings")) == "PERMISSIVE"


# --- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            rule("host: reviews"),
            "0.yaml:4: spec: must have subsets or trafficPolicy",
        ),
        (
            rule("host: reviews, trafficPolicy: {tls: {mode: SIMPLE}}"),
            "0.yaml:4: spec.trafficPolicy.tls.mode: 'SIMPLE' is not supported (supported: ISTIO_MUTUAL, DISABLE)",
        ),
        (
            rule("host: '*.shop.svc.cluster.local', trafficPolicy: {}"),
            (
                "0.yaml:4: spec.host: there is no service '*.shop.svc.cluster.local'; known: details, productpage,"
                " ratings, reviews"
            ),
        ),
        (
            rule("host: reviews, trafficPolicy: {tls: {mode: DISABLE}}")
            + "---\n"
            + PEER
            + "spec: {mtls: {mode: STRICT}}\n",
            (
                "0.yaml:4: spec.trafficPolicy.tls.mode: reviews refuses it: a PeerAuthentication sets STRICT for its"
                " port"
            ),
        ),
        (
            rule("host: reviews, trafficPolicy: {portLevelSettings: []}"),
            "0.yaml:4: spec.trafficPolicy.portLevelSettings: is not translated for this machine",
        ),
    ],
)
def test_reports_error_in_destination_rule_with_line(text: str, message: str, tmp_path: Path) -> None:
    """A rule without an effect, or with one that is not translated, is refused with file, line and field."""
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    assert [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems] == [message]


def test_wildcard_is_no_host_of_a_virtual_service(tmp_path: Path) -> None:
    """Routes of many services at once are not translated."""
    with pytest.raises(InputError, match=r"spec\.hosts\[0\]: there is no service"):
        read(tmp_path, virtual("route: [{destination: {host: reviews}}]").replace("[reviews]", "['*']"))
