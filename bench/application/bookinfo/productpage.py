"""productpage: the page and the API, which call the three back ends."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

from aiohttp import ClientSession, web
from jinja2 import Environment, FileSystemLoader

from bench.application.bookinfo import login
from bench.application.bookinfo.http import (
    Reply,
    call,
    html_response,
    json_response,
    open_fresh_session,
    productpage_headers,
)
from bench.application.bookinfo.settings import Settings

_TIMEOUT_S: Final = 3.0
# The retry of reviews is part of the original's intended flaw: a failure looks like latency.
_ATTEMPTS: Final = {"details": 1, "reviews": 2, "ratings": 1}
_PRODUCT: Final = {
    "id": 0,
    "title": "The Comedy of Errors",
    "descriptionHtml": '<a href="https://en.wikipedia.org/wiki/The_Comedy_of_Errors">On Wikipedia</a>: in '
    "Ephesus two pairs of twins, parted as children in a storm at sea, are taken for one another for a whole "
    "day. It is <b>William Shakespeare</b>'s shortest play and one of his first, and it lives on beatings, "
    "puns and doors that open to the wrong brother.",
}
_REDIRECTING: Final = "<!doctype html>\n<title>Redirecting</title>\n<p>Back to where you came from.</p>\n"


def load_templates() -> Environment:
    """Compile the pages; values are escaped, except the product's own HTML."""
    folder = Path(__file__).parent / "templates"
    return Environment(loader=FileSystemLoader(folder), autoescape=True)


async def application(settings: Settings) -> web.Application:
    """Return the service."""
    session = open_fresh_session(_TIMEOUT_S)
    front = _Front(settings, session)
    app = web.Application()
    app.router.add_get("/", front.index)
    app.router.add_get("/index.html", front.index)
    app.router.add_get("/productpage", front.page)
    app.router.add_post("/login", _login)
    app.router.add_get("/logout", _logout)
    app.router.add_get("/health", _health)
    app.router.add_get("/metrics", front.metrics)
    app.router.add_get("/api/v1/products", _products)
    app.router.add_get("/api/v1/products/{product}", front.details)
    app.router.add_get("/api/v1/products/{product}/reviews", front.reviews)
    app.router.add_get("/api/v1/products/{product}/ratings", front.ratings)
    app.on_cleanup.append(lambda _app: session.close())
    return app


class _Front:
    def __init__(self, settings: Settings, session: ClientSession) -> None:
        self._settings = settings
        self._session = session
        self._results: Counter[tuple[str, int]] = Counter()
        templates = load_templates()
        self._page = templates.get_template("productpage.html")
        self._index = templates.get_template("index.html").render(peers=settings.peers)

    async def page(self, request: web.Request) -> web.Response:
        """Return the page, always with status 200: details first, then reviews, never in parallel."""
        user = _read_user(request)
        headers = productpage_headers(request.headers, user)
        details = await self._get("details", "0", headers=headers)
        for _ in range(self._settings.flood_factor):
            await self._get("reviews", "0", headers=headers)
        reviews = await self._get("reviews", "0", headers=headers)
        text = self._page.render(product=_PRODUCT, details=details, reviews=reviews, user=user)
        return _vary_by_cookie(html_response(text))

    async def details(self, request: web.Request) -> web.Response:
        return await self._pass_on("details", request)

    async def reviews(self, request: web.Request) -> web.Response:
        return await self._pass_on("reviews", request)

    async def ratings(self, request: web.Request) -> web.Response:
        return await self._pass_on("ratings", request)

    async def index(self, _request: web.Request) -> web.Response:
        return html_response(self._index)

    async def metrics(self, _request: web.Request) -> web.Response:
        """Return the counts of calls by status, as Prometheus text."""
        return web.Response(text=format_metrics(self._results))

    async def _pass_on(self, name: str, request: web.Request) -> web.Response:
        headers = productpage_headers(request.headers, _read_user(request))
        reply = await self._get(name, request.match_info["product"], headers=headers)
        return _vary_by_cookie(json_response(reply.data, status=reply.status))

    async def _get(self, name: str, product: str, *, headers: Mapping[str, str]) -> Reply:
        """Return a back end's reply; for a failure its status and an error text as data."""
        peer, path = self._settings.peers[name], f"/{name}/{quote(product, safe='')}"
        reply = Reply(500)
        for _ in range(_ATTEMPTS[name]):
            reply = await call(self._session, peer, path=path, headers=headers)
            if reply.ok:
                break
        self._results[name, reply.status] += 1
        apology = {"error": f"Sorry, product {name} are currently unavailable for this book."}
        return reply if reply.ok else Reply(reply.status, apology)


def format_metrics(results: Counter[tuple[str, int]]) -> str:
    """Format the counter `request_result` as Prometheus text."""
    lines = ["# HELP request_result_total Results of requests", "# TYPE request_result_total counter"]
    for (name, status), count in results.items():
        lines.append(f'request_result_total{{destination_app="{name}",response_code="{status}"}} {count}')
    return "\n".join(lines) + "\n"


async def _login(request: web.Request) -> web.Response:
    """Log in any name; the password is ignored."""
    response = _redirect_back(request)
    user = str((await request.post()).get("username", ""))
    response.set_cookie(login.COOKIE, login.sign(user), httponly=True)
    return response


async def _logout(request: web.Request) -> web.Response:
    response = _redirect_back(request)
    response.del_cookie(login.COOKIE, httponly=True)
    return response


async def _products(_request: web.Request) -> web.Response:
    return json_response([_PRODUCT])


async def _health(_request: web.Request) -> web.Response:
    return html_response("Product page is healthy")


def _redirect_back(request: web.Request) -> web.Response:
    """Return a redirect to the Referer.

    Without one it leads to `None`, so that a script without it fails as with the original.
    """
    response = html_response(_REDIRECTING, status=302)
    response.headers["Location"] = request.headers.get("referer", "None")
    return _vary_by_cookie(response)


def _read_user(request: web.Request) -> str:
    return login.verify(request.cookies.get(login.COOKIE))


def _vary_by_cookie(response: web.Response) -> web.Response:
    response.headers["Vary"] = "Cookie"
    return response
