"""The product page, and the check whether a page is complete."""

import ast
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from bench.application.bookinfo import pages
from bench.application.bookinfo.http import Reply
from bench.application.bookinfo.productpage import load_templates
from bench.bookinfo.pages import page_problem

COLOURS = {"v1": None, "v2": "black", "v3": "red"}
BOOK = {
    "author": "William Shakespeare",
    "year": 1595,
    "type": "paperback",
    "pages": 200,
    "publisher": "PublisherA",
    "language": "English",
    "ISBN-10": "1234567890",
    "ISBN-13": "123-1234567890",
}
DOWN = Reply(503, {"error": "Sorry"})


def review(number: int, rating: dict[str, Any] | None, text: str = "Fine.") -> dict[str, Any]:
    words = {"reviewer": f"Reviewer{number}", "text": text}
    return words | ({"rating": rating} if rating else {})


def reviews_of(version: str, text: str = "Fine.") -> Reply:
    colour = COLOURS[version]
    ratings = [{"stars": stars, "color": colour} if colour else None for stars in (5, 4)]
    found = [review(number, rating, text) for number, rating in enumerate(ratings, start=1)]
    return Reply(200, {"id": "0", "podname": "reviews-pod", "clustername": "null", "reviews": found})


def page_of(details: Reply, reviews: Reply, user: str = "") -> str:
    template = load_templates().get_template("productpage.html")
    return template.render(
        product={"title": "T", "descriptionHtml": "<b>D</b>"}, details=details, reviews=reviews, user=user
    )


def stars_in_current_look(colour: str) -> str:
    return f'<div class="flex gap-x-1 text-{colour}-500"><svg class="h-5 w-5 flex-none"></svg></div>'


def stars_in_the_older_look(colour: str) -> str:
    return f'<font color="{colour}"><span class="glyphicon glyphicon-star"></span></font>'


def original_page(version: str, stars: Any) -> str:
    row = stars(COLOURS[version]) if COLOURS[version] else ""
    facts = "<th>ISBN-10</th><td>1234567890</td><td>PublisherA</td>"
    return facts + "".join(f"<section>{row}<p>{name}</p></section>" for name in ("Reviewer1", "Reviewer2"))


@pytest.mark.parametrize("version", COLOURS)
def test_accepts_complete_page(version: str) -> None:
    """Our page with both back ends up is complete, as text and as bytes."""
    page = page_of(Reply(200, BOOK), reviews_of(version))
    assert page_problem(page, version) is None
    assert page_problem(page.encode(), version) is None


@pytest.mark.parametrize(("shown", "expected"), [pair for pair in product(COLOURS, COLOURS) if pair[0] != pair[1]])
def test_reports_stars_of_another_version(shown: str, expected: str) -> None:
    """A page of another version of reviews than the configuration's is never accepted."""
    problem = page_problem(page_of(Reply(200, BOOK), reviews_of(shown)), expected)
    assert problem is not None
    assert "stars" in problem


@pytest.mark.parametrize("look", [stars_in_current_look, stars_in_the_older_look])
@pytest.mark.parametrize(("shown", "expected"), list(product(COLOURS, COLOURS)))
def test_checks_pages_of_original_bookinfo(shown: str, expected: str, look: Any) -> None:
    """The check holds for the markup of the original Bookinfo, in its present and in its older look."""
    assert (page_problem(original_page(shown, look), expected) is None) == (shown == expected)


@pytest.mark.parametrize(
    ("details", "reviews", "problem"),
    [
        (DOWN, reviews_of("v3"), "page says: Error fetching product details"),
        (Reply(200, BOOK), DOWN, "page says: Error fetching product reviews"),
        (DOWN, DOWN, "page says: Error fetching product details"),
        (Reply(200, {}), reviews_of("v3"), "page shows no book details"),
        (Reply(200, BOOK), Reply(200, {"reviews": [review(1, None)]}), "page doesn't show two reviews"),
    ],
)
def test_reports_missing_part(details: Reply, reviews: Reply, problem: str) -> None:
    """A page with status 200 that lacks a part is reported with a fixed text."""
    assert page_problem(page_of(details, reviews), "v3") == problem


def test_reports_missing_ratings() -> None:
    """The page shows that ratings are missing, although reviews returns 200 without them."""
    error = {"error": "Ratings service is currently unavailable"}
    reviews = Reply(200, {"podname": "p", "clustername": "null", "reviews": [review(n, error) for n in (1, 2)]})
    problem = page_problem(page_of(Reply(200, BOOK), reviews), "v2")
    assert problem == "page says: Ratings service is currently unavailable"


def test_reports_empty_and_truncated_page() -> None:
    """An empty page and half a page are both refused."""
    page = page_of(Reply(200, BOOK), reviews_of("v1"))
    assert page_problem(b"", "v1") is not None
    assert page_problem(page[: len(page) // 2], "v1") is not None


def test_escapes_values() -> None:
    """Values of back ends and users are text in the page, never markup; the product's own HTML stays."""
    page = page_of(Reply(200, BOOK), reviews_of("v3", text="<script>alert(1)</script>"), user="<i>Eve</i>")
    assert "<script>alert" not in page
    assert "&lt;i&gt;Eve&lt;/i&gt;" in page
    assert "<b>D</b>" in page


def test_shows_cluster_only_with_a_name() -> None:
    """`null` is how reviews spells an unset cluster name."""
    named = Reply(200, reviews_of("v1").data | {"clustername": "east"})
    assert "on cluster east" in page_of(Reply(200, BOOK), named)
    assert "on cluster" not in page_of(Reply(200, BOOK), reviews_of("v1"))


def test_check_needs_only_the_standard_library() -> None:
    """The module can be copied alone to where the load generator runs."""
    tree = ast.parse(Path(pages.__file__).read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    plain = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported | plain <= set(sys.stdlib_module_names) | {"collections.abc"}
