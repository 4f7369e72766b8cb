"""The port of Locust's page is checked before a run on a cluster."""

import socket

from bench.errors import exit_code_of
from tests.shown_cluster import examine_two_nodes, find_results


def test_port_in_use_refuses_the_run() -> None:
    """The pre-flight ends with exit code 3 and a hint, before a mesh is installed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        (finding,) = find_results("Locust's page", examine_two_nodes(locust_ui=port))
    assert (finding.status, exit_code_of(finding.error)) == ("error", 3)
    assert finding.detail == f"port {port} of this machine: Address already in use"
    assert finding.hint.startswith("give another --locust-ui PORT, or end what has this one: ")


def test_free_port_is_reported_only_for_a_page() -> None:
    """The check closes the port again, so that the first load can use it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert [finding.status for finding in find_results("Locust's page", examine_two_nodes(locust_ui=port))] == ["ok"]
    assert [finding.status for finding in find_results("Locust's page", examine_two_nodes(locust_ui=port))] == ["ok"]
    assert find_results("Locust's page", examine_two_nodes()) == []
