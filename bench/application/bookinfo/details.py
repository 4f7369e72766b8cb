"""details: the book's data."""

from typing import Final

from aiohttp import web

from bench.application.bookinfo.http import json_response
from bench.application.bookinfo.settings import Settings

_BOOK: Final = {
    "author": "William Shakespeare",
    "year": 1595,
    "type": "paperback",
    "pages": 200,
    "publisher": "PublisherA",
    "language": "English",
    "ISBN-10": "1234567890",
    "ISBN-13": "123-1234567890",
}


async def application(_settings: Settings) -> web.Application:
    """Return the service; like the original it ignores the method."""
    app = web.Application()
    app.router.add_route("*", "/details/{product}", _details)
    app.router.add_get("/health", _health)
    return app


async def _details(request: web.Request) -> web.Response:
    try:
        product = int(request.match_info["product"])
    except ValueError:
        return json_response({"error": "please provide numeric product id"}, status=400, compact=True)
    return json_response({"id": product, **_BOOK}, compact=True)


async def _health(_request: web.Request) -> web.Response:
    return json_response({"status": "Details is healthy"}, compact=True)
