"""Issues of records, for tests: made by their codes, and read as text."""

from collections.abc import Iterable, Mapping
from typing import Any

from bench.analysis.validity import make_issue
from bench.results.issues import Issue, IssueCode


def issue(code: str, detail: str = "as it was seen") -> Issue:
    """An issue of this code, as a check would make it."""
    return make_issue(IssueCode(code), detail)


def codes(issues: Iterable[Issue]) -> list[str]:
    """The codes of issues."""
    return [str(one.code) for one in issues]


def read_reasons(record: Mapping[str, Any], severity: str = "reason") -> list[str]:
    """The issues of this severity in the JSON of a record, each as `code: detail`."""
    return [f"{one['code']}: {one['detail']}" for one in record["issues"] if one["severity"] == severity]
