"""Judge answers as the application's `ready` says, unless the locustfile has judged them. Runs inside Locust."""

from dataclasses import dataclass
from typing import Any

_FIRST_ERROR = 400  # Locust counts answers with this status or a higher one as failed


@dataclass(frozen=True, slots=True)
class Ready:
    """The request of the application's page, a GET of `path`, and what a valid answer to it is."""

    path: str
    status: int = 200
    contains: str = ""

    def is_page(self, method: Any, name: Any, url: Any) -> bool:
        """Return whether a request is for the page; a client that reports no URL has the path as its name."""
        return method == "GET" and find_path(url or name) == self.path

    def judge(self, response: Any, exception: Any) -> bool:
        """Return whether the answer to a request for the page is valid."""
        if getattr(response, "_manual_result", None) is not None:  # by `success()` or `failure()` of `catch_response`
            return not exception
        status = getattr(response, "status_code", None)
        if not status or (exception and status < _FIRST_ERROR):  # no answer, or none that could be read
            return not exception
        body = _find_body(response)
        return bool(status == self.status) and (body is None or self.contains.encode() in body)


def find_path(url: Any) -> str:
    """Return the path of a URL, or of a path with a query; empty where it is neither."""
    if not isinstance(url, str):
        return ""
    rest = url.partition("://")[2]
    path = f"/{rest.partition('/')[2]}" if rest else url
    path = path.partition("?")[0].partition("#")[0]
    return path if path.startswith("/") else ""


def is_redirected(response: Any) -> bool:
    """Return whether more than one request was sent: the client followed redirects."""
    return bool(getattr(response, "_history", None) or getattr(response, "__dict__", {}).get("history"))


def _find_body(response: Any) -> bytes | None:
    """Return a body that the client has read; None for any other, which is left to the locustfile."""
    found = (getattr(response, name, None) for name in ("_content", "_cached_content"))
    return next((body for body in found if isinstance(body, bytes)), None)
