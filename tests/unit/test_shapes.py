"""Objects of an API server are checked where they come in."""

from typing import Any

import pytest

from bench.errors import BadAnswerError
from bench.k8s.shapes import check_object, check_review

METADATA = {"name": "a"}


def test_null_is_no_field() -> None:
    """A reader asks once whether a field is there."""
    spec = {"containers": [{"name": "b", "image": None}], "nodeName": None}
    found = check_object({"metadata": METADATA, "spec": spec, "status": None}, "v1", "Pod", "reading")
    assert found == {"metadata": METADATA, "spec": {"containers": [{"name": "b"}]}}


@pytest.mark.parametrize(
    ("thing", "where"),
    [
        ({}, "metadata is missing"),
        ({"metadata": {"name": 3}}, "metadata.name is not text"),
        ({"metadata": METADATA, "spec": {"containers": 3}}, "spec.containers is not a list"),
        ({"metadata": METADATA, "spec": {"containers": [{}]}}, r"spec.containers\[0\].name is missing"),
        ({"metadata": {**METADATA, "labels": {"a": 1}}, "spec": {"containers": []}}, "metadata.labels.a is not text"),
    ],
)
def test_another_shape_is_one_error(thing: dict[str, Any], where: str) -> None:
    """It has the request, the kind and the path."""
    with pytest.raises(BadAnswerError, match=f"listing pods: Pod: not as Kubernetes has it: {where}$"):
        check_object(thing, "v1", "Pod", "listing pods")


@pytest.mark.parametrize(("api_version", "kind"), [("events.k8s.io/v1", "Event"), ("longhorn.io/v1beta2", "Node")])
def test_kind_of_another_group_has_its_own_shape(api_version: str, kind: str) -> None:
    """Its name alone says nothing."""
    assert check_object({"metadata": METADATA}, api_version, kind, "listing") == {"metadata": METADATA}


def test_review_without_an_answer_is_an_error() -> None:
    """No answer is no permission."""
    with pytest.raises(BadAnswerError, match="status is missing"):
        check_review({}, "checking")
