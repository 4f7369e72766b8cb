"""Keep the old check of pages for Locust files of earlier runs, and of users."""

from bench.application.bookinfo.pages import find_problem


def page_problem(body: bytes | str, reviews: str) -> str | None:
    """Return the problem of a page with that version of reviews, or `any`; None when it is complete."""
    return find_problem(body, {} if reviews == "any" else {"reviews": reviews})
