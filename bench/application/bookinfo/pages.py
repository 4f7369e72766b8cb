"""Whether a product page is whole: the one place that says so.

Bookinfo answers 200 with both back ends down, so a status proves nothing. Standard library only, since this
also runs inside the load generator; it holds for the original's pages (the present and the older look) too.
"""

from collections.abc import Mapping
from typing import Final

_ERROR: Final = b"Error fetching product "  # details, or reviews
_NO_RATINGS: Final = b"Ratings service is currently unavailable"
_LABEL: Final = b"ISBN-10"
_PUBLISHER: Final = b"PublisherA"
_REVIEWERS: Final = (b"Reviewer1", b"Reviewer2")
# one per review: how the present and the older page colour a row of stars
_STARS: Final[Mapping[str, tuple[bytes, bytes]]] = {
    "black": (b' text-black-500"', b'<font color="black"'),
    "red": (b' text-red-500"', b'<font color="red"'),
}
_STAR_ROWS: Final[Mapping[str, Mapping[str, int]]] = {
    "any": {},
    "v1": {"black": 0, "red": 0},
    "v2": {"black": 2, "red": 0},
    "v3": {"black": 0, "red": 2},
}


def page_problem(body: bytes | str, reviews: str) -> str | None:
    """What is wrong with the page that reviews `v1`, `v2` or `v3` should give; None when it is whole.

    `any` leaves the stars open, for applications that mix versions.

    The texts are few and fixed, so that failures can be counted by them. Called for every answer under load:
    some plain searches, and those for the reviews' marks only in what follows the details.
    """
    page = body.encode() if isinstance(body, str) else body
    if _ERROR in page:
        return f"page says: Error fetching product {'details' if _ERROR + b'details' in page else 'reviews'}"
    head, _, rest = page.partition(_PUBLISHER)
    if not rest or not (_LABEL in head or _LABEL in rest):
        return "page shows no book details"
    return _reviews_problem(rest, reviews)


def _reviews_problem(part: bytes, reviews: str) -> str | None:
    if not all(reviewer in part for reviewer in _REVIEWERS):
        return "page doesn't show two reviews"
    if _NO_RATINGS in part:
        return f"page says: {_NO_RATINGS.decode()}"
    for colour, expected in _STAR_ROWS[reviews].items():
        if sum(part.count(mark) for mark in _STARS[colour]) != expected:
            return f"page's rows of {colour} stars are not {expected}, as reviews {reviews} has"
    return None
