"""ratings: stars per reviewer, in memory."""

import asyncio
import json
import random
from typing import Any, Final

from aiohttp import web

from bench.application.bookinfo.http import json_response
from bench.application.bookinfo.settings import Settings

_STARS: Final = {"Reviewer1": 5, "Reviewer2": 4}
_DELAY_S: Final = 7.0


async def application(settings: Settings) -> web.Application:
    """Return the service, in a normal version or one that fails on purpose, to test that this is noticed.

    v2 has no database; half of v-faulty's responses are errors; half of v-delayed's are 7 s late.
    """
    ratings = _Ratings(settings.version)
    app = web.Application()
    app.router.add_get("/ratings/{product}", ratings.read)
    app.router.add_post("/ratings/{product}", ratings.write)
    app.router.add_get("/health", _health)
    return app


class _Ratings:
    def __init__(self, version: str) -> None:
        self._version = version
        self._posted: dict[int, Any] = {}

    async def read(self, request: web.Request) -> web.Response:
        product = _parse_product(request)
        if product is None:
            return _error_response(400, "please provide numeric product ID")
        if self._version == "v2":
            return _error_response(500, "could not connect to ratings database")
        unlucky = random.random() < 0.5  # noqa: S311  # a coin, no secret
        if self._version == "v-faulty" and unlucky:
            return _error_response(503, "Service unavailable")
        if self._version == "v-delayed" and unlucky:
            await asyncio.sleep(_DELAY_S)
        return self._answer(product)

    async def write(self, request: web.Request) -> web.Response:
        product = _parse_product(request)
        if product is None:
            return _error_response(400, "please provide numeric product ID")
        try:
            posted = json.loads(await request.read())
        except ValueError:
            return _error_response(400, "please provide valid ratings JSON")
        if self._version == "v2":
            return _error_response(501, "Post not implemented for database backed ratings")
        self._posted[product] = posted
        return self._answer(product)

    def _answer(self, product: int) -> web.Response:
        return json_response({"id": product, "ratings": self._posted.get(product, _STARS)}, compact=True)


def _parse_product(request: web.Request) -> int | None:
    try:
        return int(request.match_info["product"])
    except ValueError:
        return None


def _error_response(status: int, text: str) -> web.Response:
    return json_response({"error": text}, status=status, compact=True)


async def _health(_request: web.Request) -> web.Response:
    return json_response({"status": "Ratings is healthy"}, compact=True)
