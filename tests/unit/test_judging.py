"""How answers are judged: by the locustfile, else as the application's `ready` says."""

from types import SimpleNamespace
from typing import Any

import pytest

from bench.load.judging import Ready, find_path, is_redirected

PAGE = Ready("/page", 200, "welcome")


def answer(status: int, body: bytes = b"welcome", **more: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"status_code": status, "_content": body, **more})


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://shop:80/page?id=1#top", "/page"),
        ("http://shop", "/"),
        ("/page?id=1", "/page"),
        ("page", ""),
        (None, ""),
        (b"/page", ""),
    ],
)
def test_finds_path(url: Any, path: str) -> None:
    """Of a URL and of a path, without query and fragment."""
    assert find_path(url) == path


def test_page_is_a_get_of_its_path() -> None:
    """The URL decides, whatever the request's name is; a client without URLs has the path as name."""
    assert PAGE.is_page("GET", "start", "http://shop/page?x=1")
    assert PAGE.is_page("GET", "/page", None)
    assert not PAGE.is_page("POST", "/page", "http://shop/page")
    assert not PAGE.is_page("GET", "/page", "http://shop/other")


@pytest.mark.parametrize(
    ("response", "exception", "valid"),
    [
        (answer(200), None, True),
        (answer(200, b"an error page"), None, False),
        (answer(201), None, False),
        (answer(503), OSError(), False),
        (answer(200), OSError("cut"), False),
        (answer(0), OSError(), False),
        (None, OSError(), False),
        (None, None, True),
        (answer(200, b"other", _manual_result=True), None, True),
        (answer(200, _manual_result=OSError()), OSError(), False),
        (SimpleNamespace(status_code=200, _cached_content=b"other"), None, False),
        (SimpleNamespace(status_code=200), None, True),
    ],
)
def test_judges_by_ready_unless_the_locustfile_has(response: Any, exception: Any, valid: bool) -> None:
    """Status and text count where the client has read them; `success()` and `failure()` of the locustfile win."""
    assert PAGE.judge(response, exception) is valid


def test_ready_may_be_an_error_status() -> None:
    """An application whose valid answer is a 404 is measured, though Locust calls it a failure."""
    assert Ready("/", 404).judge(answer(404), OSError("404"))
    assert not Ready("/", 404).judge(answer(200), None)


def test_notices_redirects() -> None:
    """Of both of Locust's clients."""
    assert is_redirected(SimpleNamespace(history=[1]))
    assert is_redirected(SimpleNamespace(_history=[1]))
    assert not is_redirected(SimpleNamespace(history=[], _history=[]))
    assert not is_redirected(None)
