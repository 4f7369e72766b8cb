"""A Prometheus at a URL, over a real connection."""

import base64
from typing import Any, cast

import pytest

from bench.errors import ClusterError
from bench.k8s.client import Cluster, Object
from bench.targets.cluster.prometheus import examine_prometheus, make_query, without_password
from tests.api_server import serve

ANSWER = {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "value": [0, "17"]}]}}


def test_unreachable_prometheus_names_the_url() -> None:
    """The error names the URL."""
    with pytest.raises(ClusterError, match=r"querying Prometheus at http://127.0.0.1:9/api/v1/query: .*refused"):
        make_query("http://127.0.0.1:9/", cast("Cluster", None))("up")


class FakePrometheus:
    """Responds to every query with `reply`, and keeps the credentials of the request."""

    def __init__(self, reply: Any) -> None:
        self.reply, self.seen = reply, list[str]()

    def answer(self, _method: str, _url: str, _body: Object, headers: dict[str, str]) -> tuple[int, Object]:
        self.seen.append(headers.get("Authorization", ""))
        return 200, self.reply


def test_url_password_is_sent_and_not_shown() -> None:
    """The password is sent as a header to this server alone; checks, errors and records have the URL without it."""
    fake = FakePrometheus(
        {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [0, "17"]}]}}
    )
    cluster = cast("Cluster", None)
    with serve(fake) as address:
        place = f"http://me:pa55%20word@{address}"
        finding = examine_prometheus(place, cluster)
    assert fake.seen == [f"Basic {base64.b64encode(b'me:pa55 word').decode()}"]
    assert finding.detail == f"http://{address} answers"
    assert without_password(place) == f"http://{address}"
    with pytest.raises(ClusterError, match=f"querying Prometheus at http://{address}/api") as caught:
        make_query(place, cluster)("up")
    assert "pa55" not in str(caught.value)
