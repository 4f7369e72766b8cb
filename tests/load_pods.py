"""The load of tests that have no cluster: its specification, and its pod as an API server shows it."""

from collections.abc import Sequence
from typing import Any

from bench.files.folders import find_shipped
from bench.k8s.client import Object
from bench.load.generator import LoadSpec


def make_load_spec() -> LoadSpec:
    """Make the shipped load with the study's window."""
    return LoadSpec(
        address="productpage:9080",
        virtual_host="productpage:9080",
        locustfile=find_shipped("locustfiles") / "bookinfo.py",
        versions={"reviews": "v3"},
        check="bench.application.bookinfo.pages",
        users=20,
        think_time_s=0.1,
        rate_per_s=None,
        warmup_s=30,
        duration_s=120,
        seed=7,
    )


def container_status(name: str, *, restarts: int = 0, **state: Object) -> Object:
    """Make the status of a container, running if nothing else is given."""
    return {"name": name, "restartCount": restarts, "state": state or {"running": {}}}


def load_pod(*containers: Object, early: Sequence[Object] = (), **status: Any) -> Object:
    """Make the load pod with the statuses of its containers."""
    made = {"containerStatuses": list(containers), "initContainerStatuses": list(early), **status}
    return {"metadata": {"name": "locust"}, "status": made}
