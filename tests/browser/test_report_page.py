"""The pages of reports and histories as users see them, in a real browser without a network."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bench.report import write_report
from bench.report.history_page import write_history_page
from tests.factory import ISTIO_AND_KUMA, ISTIO_POLICIES, MESH_PAIRS, USERS_SWEEP, ConfigSpec, RunSpec, make_run
from tests.nights import CONDITIONS, LAST, make_history

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"), pytest.mark.slow]

SHORT = RunSpec(warmup_s=3.0, duration_s=10.0)
LONG = tuple(ConfigSpec("a-very-long-name-" + "x" * 22 + str(number), median_ms=5.0 + number) for number in range(6))
FIVE = replace(SHORT, configurations=ISTIO_AND_KUMA, contrasts=MESH_PAIRS, repeats=2, run_sd=0.4)
RUNS = {
    "policies": SHORT,
    "two meshes, long intervals": FIVE,
    "duet": replace(SHORT, design="duet", repeats=12, duration_s=5.0, block_sd=0.3, quick=True),
    "sweep": RunSpec(configurations=USERS_SWEEP, reference=None, warmup_s=2.0, duration_s=4.0),
    "one": RunSpec(configurations=ISTIO_POLICIES[:1], reference=None, repeats=1, warmup_s=1.0, duration_s=3.0),
    "long-names": RunSpec(
        configurations=LONG, reference=LONG[0].name, repeats=2, warmup_s=1.0, duration_s=3.0, quick=True
    ),
}
UPGRADED = {"conditions": {**CONDITIONS, "cluster": "Kubernetes v1.32.0, 3 nodes"}, "versions": {"istio": "1.28.0"}}
HISTORIES = {
    "first night": make_history(1),
    "nights": make_history(
        60,
        slower_from={20: 0.3, 45: -0.25},
        changes={0: {"versions": {"istio": "1.27.0"}}, 12: {"valid": False}, 14: {"valid": True}, 20: UPGRADED},
    ),
    "year": make_history(365, slower_from={200: 0.2}, scenario="a-very-long-name-" + "x" * 40),
}
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 800}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages of all kinds of runs and histories."""
    made = {}
    for name, run in RUNS.items():
        stored = make_run(tmp_path_factory.mktemp(name), run)
        write_report(stored, formats=["html"])
        made[name] = stored.path / "report" / "index.html"
    for name, history in HISTORIES.items():
        made[name] = tmp_path_factory.mktemp("history") / f"{name}.html"
        write_history_page(history, made[name], now=LAST + timedelta(days=4))
    return made


@pytest.fixture(params=[*RUNS, *HISTORIES])
def address(request: pytest.FixtureRequest, pages: dict[str, Path]) -> str:
    return pages[request.param].as_uri()


@pytest.fixture
def policies(pages: dict[str, Path]) -> str:
    return pages["policies"].as_uri()


def open_page(browser: Any, address: str, **settings: Any) -> Any:
    """Open the page in its own context, without a network; its requests and console messages are kept."""
    page = browser.new_context(offline=True, **settings).new_page()
    page.asked, page.complaints = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(address)
    return page


def test_page_makes_no_requests_and_logs_nothing(browser: Any, address: str) -> None:
    """Opening the page makes no request but its own, and writes nothing to the console."""
    page = open_page(browser, address, viewport=DESK)
    assert page.asked == [address]
    assert page.complaints == []


@pytest.mark.parametrize("viewport", [{"width": 320, "height": 600}, PHONE, DESK])
def test_page_never_scrolls_sideways(browser: Any, address: str, viewport: dict[str, int]) -> None:
    """On a phone, a small window and a desktop only the tables' own boxes scroll sideways."""
    page = open_page(browser, address, viewport=viewport)
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_answer_is_visible_without_scrolling(browser: Any, policies: str) -> None:
    """At 1280 x 800 the answers, the headline figure and the heading of the warnings are all on the first screen."""
    page = open_page(browser, policies, viewport=DESK)
    for wanted in (".headline", "#answer", "#figure-p95", "#warnings h2"):
        box = page.locator(wanted).bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= DESK["height"], wanted
    words = page.locator("#answer").inner_text()
    assert "istio-policies" in words
    assert "95 % interval" in words.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize("viewport", [PHONE, DESK])
def test_headline_is_the_first_sentence(browser: Any, policies: str, viewport: dict[str, int]) -> None:
    """The answer in one sentence is above what was measured and all numbers, and larger than the text around it."""
    page = open_page(browser, policies, viewport=viewport)
    headline, measured = page.locator(".headline"), page.locator(".measured")
    assert headline.inner_text().startswith("Istio's sidecars add ")
    assert headline.bounding_box()["y"] < measured.bounding_box()["y"]
    sizes = [part.evaluate("part => parseFloat(getComputedStyle(part).fontSize)") for part in (headline, measured)]
    assert sizes[0] > sizes[1]


def test_answer_comes_first_on_a_phone(browser: Any, policies: str) -> None:
    """On a phone the whole first answer is on the first screen."""
    page = open_page(browser, policies, viewport=PHONE)
    box = page.locator(".answer").first.bounding_box()
    assert box["y"] + box["height"] <= PHONE["height"]


@pytest.mark.parametrize("kind", ["two meshes, long intervals", "long-names"])
@pytest.mark.parametrize("viewport", [PHONE, DESK])
def test_many_answers_are_a_table_that_fits(
    browser: Any, pages: dict[str, Path], viewport: dict[str, int], kind: str
) -> None:
    """More than three comparisons are a table that needs no scrolling sideways; its prose is folded."""
    page = open_page(browser, pages[kind].as_uri(), viewport=viewport)
    box = page.locator("#answer .scroll")
    assert box.evaluate("box => box.scrollWidth <= box.clientWidth")
    assert not page.locator("#answer .answer").first.is_visible()
    page.locator("#answer summary").click()
    assert page.locator("#answer .answer").first.is_visible()
    assert page.locator("#answer tbody tr").count() <= page.locator("#answer .answer").count()


def test_many_blocks_of_a_cell_open_with_a_click(browser: Any, pages: dict[str, Path]) -> None:
    """The range of the blocks' ratios is in the cell, each ratio below it when it is opened."""
    page = open_page(browser, pages["duet"].as_uri(), viewport=DESK)
    fold = page.locator("#contrasts .fold").first
    closed = fold.bounding_box()["height"]
    assert " to " in fold.locator("summary").inner_text()
    fold.locator("summary").click()
    assert fold.bounding_box()["height"] > closed
    assert fold.inner_text().count(",") == 11


def test_design_is_at_the_top(browser: Any, pages: dict[str, Path]) -> None:
    """How the configurations shared their blocks is on the first screen, on a phone, too."""
    page = open_page(browser, pages["duet"].as_uri(), viewport=PHONE)
    measured = page.locator(".measured")
    assert measured.inner_text().startswith("Three configurations side by side (duet): 12 blocks of 5 s")
    box = measured.bounding_box()
    assert box["y"] + box["height"] <= PHONE["height"]


def test_every_figure_has_a_name_for_screen_readers(browser: Any, address: str) -> None:
    """Each figure is an image with a title, and has a caption."""
    page = open_page(browser, address, viewport=DESK)
    figures = page.locator("figure").count()
    assert figures >= 2
    assert page.get_by_role("img").count() == figures
    for image in page.get_by_role("img").all():
        assert len(page.locator(f"#{image.get_attribute('aria-labelledby')}").text_content()) > 20
    assert page.locator("figure figcaption").count() == figures


def test_figure_text_is_large_enough(browser: Any, policies: str) -> None:
    """Most letters of a figure are at least 7 px high on a phone and 9.5 px on a desktop, none below 80 % of that."""
    for viewport, least in ((PHONE, 7.0), (DESK, 9.5)):
        page = open_page(browser, policies, viewport=viewport)
        heights = page.evaluate(
            """() => [...document.querySelectorAll('figure svg text')].filter(text => text.textContent.trim())
                 .map(text => parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a)
                 .filter(height => height > 0)"""
        )
        assert min(heights) >= least * 0.8  # names inside bars are smaller than the rest
        assert sorted(heights)[len(heights) // 2] >= least


@pytest.mark.parametrize("viewport", [PHONE, DESK])
def test_text_stays_inside_its_figure(browser: Any, address: str, viewport: dict[str, int]) -> None:
    """Every text of a figure lies inside its picture."""
    page = open_page(browser, address, viewport=viewport)
    outside = page.evaluate(
        """() => [...document.querySelectorAll('figure svg')].flatMap(svg => {
             const frame = svg.getBoundingClientRect();
             return [...svg.querySelectorAll('text')].filter(text => {
               const box = text.getBoundingClientRect();
               return box.left < frame.left - 1 || box.right > frame.right + 1
                   || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
             }).map(text => text.textContent);
           })"""
    )
    assert outside == []


@pytest.mark.parametrize("viewport", [PHONE, DESK])
def test_texts_of_a_figure_do_not_overlap(browser: Any, address: str, viewport: dict[str, int]) -> None:
    """Names, values, arrows and ticks of a figure do not overlap, also with long intervals and two meshes."""
    page = open_page(browser, address, viewport=viewport)
    overlapping = page.evaluate(
        """() => [...document.querySelectorAll('figure svg')].flatMap(svg => {
             const texts = [...svg.querySelectorAll('text')].filter(text => text.textContent.trim())
               .map(text => [text.textContent, text.getBoundingClientRect()]);
             const inner = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
                 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 0.4 * Math.min(a.height, b.height);
             return texts.flatMap(([one, box], place) => texts.slice(place + 1)
               .filter(([, other]) => inner(box, other)).map(([other]) => `${one} / ${other}`));
           })"""
    )
    assert overlapping == []


@pytest.mark.parametrize("viewport", [PHONE, DESK])
def test_newest_night_and_missing_ones_are_at_the_top(
    browser: Any, pages: dict[str, Path], viewport: dict[str, int]
) -> None:
    """That nights are missing, and how the newest went, are on the first screen, with the first contrast's picture."""
    page = open_page(browser, pages["nights"].as_uri(), viewport=viewport)
    for wanted in (".label", ".headline", "#contrast-1 svg"):
        box = page.locator(wanted).bounding_box()
        assert box["y"] + box["height"] <= viewport["height"], wanted
    assert page.locator(".label").inner_text().startswith("OVERDUE")


def test_what_changed_that_night_is_beside_the_picture(browser: Any, pages: dict[str, Path]) -> None:
    """The night of a new level has its size, the new baseline and both versions in one line, on the first screen."""
    page = open_page(browser, pages["nights"].as_uri(), viewport=DESK)
    events = page.locator("#contrast-1 .events")
    (line,) = [text for text in events.locator("dd").all_inner_texts() if "level +" in text]
    assert "new baseline" in line
    assert "istio: 1.27.0 / 1.28.0" in line
    assert events.bounding_box()["y"] + 40 <= DESK["height"]


def test_wide_tables_scroll_by_keyboard(browser: Any, policies: str) -> None:
    """A table's box takes the focus and has a name."""
    page = open_page(browser, policies, viewport=PHONE)
    boxes = page.locator(".scroll")
    assert boxes.count() >= 5
    for box in boxes.all():
        assert box.get_attribute("tabindex") == "0"
        assert box.get_attribute("aria-label")


@pytest.mark.parametrize("kind", ["policies", "nights"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_in_light_and_dark(browser: Any, pages: dict[str, Path], kind: str, scheme: str) -> None:
    """Text and its background have a contrast ratio of at least 4.5 in both colour schemes."""
    page = open_page(browser, pages[kind].as_uri(), viewport=DESK, color_scheme=scheme)
    lowest = page.evaluate(
        """() => {
             const light = colour => {
               const [r, g, b] = colour.match(/[0-9.]+/g).map(v => v / 255)
                 .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
               return 0.2126 * r + 0.7152 * g + 0.0722 * b;
             };
             const ground = part => {
               const found = getComputedStyle(part).backgroundColor;
               return found !== 'rgba(0, 0, 0, 0)' ? found : ground(part.parentElement);
             };
             const texts = 'h1, h2, p, li, th, td, dt, dd, .detail, .verdict, figcaption';
             return [...document.querySelectorAll(texts)].map(part => {
               const [low, high] = [light(getComputedStyle(part).color), light(ground(part))].sort((a, b) => a - b);
               return (high + 0.05) / (low + 0.05);
             }).sort((a, b) => a - b)[0];
           }"""
    )
    assert lowest >= 4.5


def test_page_prints(browser: Any, address: str, tmp_path: Path) -> None:
    """Printing makes a PDF, and everything that is folded on the screen is on paper."""
    page = open_page(browser, address, viewport=DESK)
    page.emulate_media(media="print")
    pdf = page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    assert pdf.startswith(b"%PDF")
    assert page.locator("details pre, details tbody").last.bounding_box()["height"] > 20
