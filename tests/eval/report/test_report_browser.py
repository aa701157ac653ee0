"""The report in a real browser: Chromium, headless, driven by Playwright; skipped where there is none."""

import os
import shutil

import pytest
from run_on_paper import HOSTILE, write_distances, write_run, write_triggers

from trojai_moth.eval.report.page import render_page
from trojai_moth.eval.report.run_view import read_view

from ...triggers.test_heatmap import matrix

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
MANY = 700


def browser_file():
    named = os.environ.get("TROJAI_MOTH_BROWSER")
    return named or next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    sync = pytest.importorskip("playwright.sync_api", reason="no playwright: the report is not tried in a browser")
    if browser_file() is None:
        pytest.skip("no Chromium: the report is not tried in a browser; install it or set TROJAI_MOTH_BROWSER")
    with sync.sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(tmp_path_factory.mktemp("profile")), executable_path=browser_file(), headless=True, args=FLAGS,
            accept_downloads=True,
        )  # fmt: skip
        yield context
        context.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A hostile run with a card, and a long one, as pages."""
    folder = tmp_path_factory.mktemp("pages")
    ids, _ = write_run(folder / "hostile", models=12, hostile=True)
    cards = folder / "hostile" / "cards"
    write_distances(cards / ids[0], matrix(5, lambda v, t: 10.0 + v), matrix(5, lambda v, t: 20.0 + v))
    write_triggers(folder / "hostile", ids[1])
    write_run(folder / "long", models=MANY)
    for name in ("hostile", "long"):
        (folder / f"{name}.html").write_text(render_page(read_view(folder / name)), encoding="utf-8")
    return folder


@pytest.fixture
def visit(browser, files):
    """Open one of the pages; at the end nothing was asked of a network and the console was silent."""
    page = browser.new_page()
    trouble, asked = [], []
    page.on("console", lambda message: trouble.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))

    def visit(name, fragment=""):
        page.goto(f"{(files / name).as_uri()}.html{fragment}")
        return page

    yield visit
    assert trouble == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    page.close()


def column(page, number):
    return page.locator(f"#table tbody tr > :nth-child({number})").all_inner_texts()


def test_it_loads_in_silence_and_nothing_hostile_runs(visit):
    page = visit("hostile")
    assert page.title() == "trojai-moth: hostile" and len(column(page, 1)) == 12
    assert page.locator("img, b").count() == 0 and HOSTILE in page.inner_text("#table")
    page.goto(page.url + "#model/id-00000000")
    assert page.locator("article img, article b").count() == 0 and HOSTILE in page.inner_text("article")
    assert page.title() == "id-00000000 - trojai-moth: hostile"


def test_it_sorts(visit):
    page = visit("hostile")
    head = page.locator("#table thead th", has_text="size before")
    for direction in ("ascending", "descending"):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == direction
        sizes = column(page, 5)
        known = [float(size) for size in sizes if size]
        assert known == sorted(known, reverse=direction == "descending")
        assert sizes[len(known) :] == ["", ""]  # two failed; what is not known stays last


def test_it_filters(visit):
    page = visit("hostile")
    page.select_option("#verdict", "not judged")
    assert set(column(page, 3)) == {"not judged"} and page.inner_text("#count") == "2 of 12 models"
    page.select_option("#verdict", "")
    page.fill("#find", "ID-00000007")
    page.locator("#table tbody tr").nth(1).wait_for(state="detached")
    assert column(page, 1) == ["id-00000007"]


def test_a_model_is_opened_and_left_by_keyboard(visit):
    page = visit("hostile")
    page.focus("#table tbody a")
    page.keyboard.press("Enter")
    page.wait_for_selector("#model-title:focus")
    assert page.inner_text("#model-title") == "id-00000000" and not page.is_visible("#overview")
    assert "at risk" in page.inner_text("article") and page.locator("article table.heat").count() == 2
    assert page.locator("article table.heat td", has_text="24").count() == 4  # after hardening, victim 4
    page.keyboard.press("Escape")
    page.wait_for_selector("#overview", state="visible")
    assert page.evaluate("document.activeElement.textContent") == "id-00000000"


def test_triggers_are_shown_with_what_is_known_of_them(visit):
    page = visit("hostile", "#model/id-00000001")
    strip = page.locator("article figure.strip")
    assert strip.count() == 1 and page.locator("article img").count() == 1
    assert strip.locator("img").evaluate("(image) => image.complete && image.naturalWidth") == 4 * 32 + 3 * 2
    words = strip.inner_text()
    assert " to " in words and " pixels, turns 95 % of the images that it was searched on" in words
    assert "of 9 held back" in words and strip.locator("img").get_attribute("alt").endswith("image with the trigger")


def test_figures_can_be_downloaded(visit, files):
    page = visit("hostile", "#model/id-00000001")
    for number, start in enumerate(("round,accuracy,loss", "victim,target,kind,size")):
        with page.expect_download() as waiting:
            page.locator("article button").nth(number).click()
        assert waiting.value.path().read_text().startswith(start)
    page = visit("hostile", "#")
    page.reload()
    with page.expect_download() as waiting:
        page.click("button[data-csv=results]")
    assert waiting.value.path().read_text() == read_view(files / "hostile").rows.to_csv(index=False)


def test_long_tables_are_shown_in_part_and_printed_in_full(visit):
    page = visit("long")
    assert page.locator("#table tbody tr").count() == 300
    assert page.inner_text("#count") == f"{MANY} of {MANY} models, the first 300 shown"
    page.locator("#table thead button", has_text="seconds").click()
    page.click("#more")
    assert page.locator("#table tbody tr").count() == MANY
    page.reload()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#table tbody tr").count() == MANY


@pytest.mark.parametrize("fragment", ["", "#model/id-00000000"])
def test_it_fits_a_phone(visit, fragment):
    page = visit("hostile")
    page.set_viewport_size({"width": 360, "height": 740})
    page = visit("hostile", fragment)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
