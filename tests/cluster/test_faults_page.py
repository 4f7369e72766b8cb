"""What is wrong with an application of one's own only once it runs: a page that is never valid, an entry that nothing
serves. Each ends the run before any load, with exit code 4 and the answer that came."""

from pathlib import Path
from typing import Any

import pytest

from tests.cluster.job import run_job

pytestmark = pytest.mark.usefixtures("as_before")

SOON = {"settle_s": 5.0}
RARE = pytest.mark.soak("cluster")


@pytest.mark.parametrize(
    ("ready", "expected"),
    [
        ({"path": "/no-such-page", "timeout": "5s"}, ("/no-such-page", "404")),
        pytest.param({"path": "/productpage", "status": 201, "timeout": "5s"}, ("/productpage", "200"), marks=RARE),
        pytest.param(
            {"path": "/productpage", "contains": "no such text", "timeout": "5s"}, ("/productpage",), marks=RARE
        ),
    ],
)
def test_page_that_is_never_valid_is_named(tmp_path: Path, ready: dict[str, Any], expected: tuple[str, ...]) -> None:
    """The message has the request and what was wrong with its answer, and everything is removed."""
    job = run_job(tmp_path, application={"name": "bookinfo", "ready": ready}, timing=SOON)
    assert job.exit_code == 4, job.output
    missing = [text for text in expected if text not in job.message]
    assert not missing, job.output
    assert job.record["cleanup_ok"] is True
    assert job.trials() == {}


@pytest.mark.parametrize("entry", ["productpage:9081", "storefront:9080"])
def test_entry_that_is_not_in_the_manifests_is_refused(tmp_path: Path, entry: str) -> None:
    """A Service or a port that does not exist: exit code 2 with the key, before the cluster is changed."""
    job = run_job(tmp_path, application={"name": "bookinfo", "entry": entry})
    assert job.exit_code == 2, job.output
    assert "entry" in job.message
    assert job.run_folder is None
