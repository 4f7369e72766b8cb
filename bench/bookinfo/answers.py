"""HTTP answers in the forms that the services give."""

import json
from typing import Any

from aiohttp import web


def json_answer(data: Any, *, status: int = 200, compact: bool = False) -> web.Response:
    """JSON without a charset in its content type; `compact` leaves the blanks out, as Ruby and Node do."""
    text = json.dumps(data, separators=(",", ":") if compact else None)
    return web.Response(body=text.encode(), status=status, content_type="application/json")


def html_answer(text: str, *, status: int = 200) -> web.Response:
    """A page or a text for browsers."""
    return web.Response(body=text.encode(), status=status, content_type="text/html", charset="utf-8")
