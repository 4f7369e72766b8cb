"""reviews: two reviews, and their stars from ratings."""

from collections.abc import Mapping
from typing import Any, Final

from aiohttp import ClientSession, web

from bench.application.bookinfo.http import call, json_response, open_kept_session, reviews_headers
from bench.application.bookinfo.settings import Settings

_TEXTS: Final = {
    "Reviewer1": "Two pairs of twins, one lost chain, and no calm minute: I laughed from start to end!",
    "Reviewer2": "A merry evening of doors and double takes. Whoever looks for depth has to wait for his later plays.",
}
_NO_RATING: Final = {"error": "Ratings service is currently unavailable"}
# The long one exceeds productpage's timeout: the original's intended flaw.
_TIMEOUT_S: Final = {"black": 10.0}
_OTHER_TIMEOUT_S: Final = 2.5


async def application(settings: Settings) -> web.Application:
    """Return the service; v1 shows no stars and makes no calls."""
    session = open_kept_session(_TIMEOUT_S.get(settings.star_colour, _OTHER_TIMEOUT_S))
    reviews = _Reviews(settings, session)
    app = web.Application()
    app.router.add_get(r"/reviews/{product:-?\d+}", reviews.read)
    app.router.add_get("/health", _health)
    app.on_cleanup.append(lambda _app: session.close())
    return app


class _Reviews:
    def __init__(self, settings: Settings, session: ClientSession) -> None:
        self._settings = settings
        self._session = session

    async def read(self, request: web.Request) -> web.Response:
        product = request.match_info["product"]
        stars = await self._stars(product, request.headers) if self._settings.ratings_enabled else {}
        data = {
            "id": product,
            "podname": self._settings.pod_name,
            "clustername": self._settings.cluster_name,
            "reviews": [
                {"reviewer": reviewer, "text": text, **self._rating(stars.get(reviewer))}
                for reviewer, text in _TEXTS.items()
            ],
        }
        return json_response(data)

    async def _stars(self, product: str, incoming: Mapping[str, str]) -> Mapping[str, Any]:
        headers = {"accept": "application/json"} | reviews_headers(incoming)
        peer = self._settings.peers["ratings"]
        reply = await call(self._session, peer, path=f"/ratings/{product}", headers=headers)
        stars = reply.data.get("ratings") if isinstance(reply.data, dict) else None
        return stars if isinstance(stars, dict) else {}

    def _rating(self, stars: Any) -> dict[str, Any]:
        if not self._settings.ratings_enabled:
            return {}
        colour = self._settings.star_colour
        return {"rating": _NO_RATING if stars is None else {"stars": stars, "color": colour}}


async def _health(_request: web.Request) -> web.Response:
    return json_response({"status": "Reviews is healthy"})
