"""Check whether a product page is complete; no other module does.

Bookinfo responds with 200 when both back ends are down, so the status proves nothing. Standard library only, since this
also runs in the load generator. It accepts the original's pages, too (the current and the older design).
"""

from collections.abc import Mapping
from typing import Final

_ERROR: Final = b"Error fetching product "  # details, or reviews
_NO_RATINGS: Final = b"Ratings service is currently unavailable"
_LABEL: Final = b"ISBN-10"
_PUBLISHER: Final = b"PublisherA"
_REVIEWERS: Final = (b"Reviewer1", b"Reviewer2")
# one per review: a row of stars in the current and the older design
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


def find_problem(body: bytes | str, versions: Mapping[str, str]) -> str | None:
    """Return the problem of a page with `versions` (`{"reviews": "v3"}`); None when it is complete.

    Without a version of reviews the stars are not checked.

    The messages are few and fixed, so that failures can be counted by message. It is called for every response under
    load, so that it only searches substrings, and those of reviews only after the details.
    """
    page = body.encode() if isinstance(body, str) else body
    if _ERROR in page:
        return f"page says: Error fetching product {'details' if _ERROR + b'details' in page else 'reviews'}"
    head, _, rest = page.partition(_PUBLISHER)
    if not rest or not (_LABEL in head or _LABEL in rest):
        return "page shows no book details"
    return _find_reviews_problem(rest, versions.get("reviews", "any"))


def _find_reviews_problem(part: bytes, reviews: str) -> str | None:
    if not all(reviewer in part for reviewer in _REVIEWERS):
        return "page doesn't show two reviews"
    if _NO_RATINGS in part:
        return f"page says: {_NO_RATINGS.decode()}"
    for colour, expected in _STAR_ROWS[reviews].items():
        if sum(part.count(mark) for mark in _STARS[colour]) != expected:
            return f"page's rows of {colour} stars are not {expected}, as reviews {reviews} has"
    return None
