"""A browser shows the report: no console messages, nothing from elsewhere, every figure drawn, no sideways scrolling."""

import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from explaind_tf.report import Section, write_report

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="needs Chromium: apt-get install chromium, or its path in CHROMIUM"
    ),
]


@pytest.fixture(scope="module")
def report(section: Section, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("browser") / "report.html"
    # The hostile text is too long for the title of an axis.
    write_report(path, [dataclasses.replace(section, unit="logits")])
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Root in a container has no sandbox; what is opened was written by the test.
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.mark.parametrize(
    ("width", "scheme"), [pytest.param(1440, "light", marks=pytest.mark.nightly), (390, "dark")]
)
def test_a_browser_shows_every_figure(browser: Any, report: Path, width: int, scheme: str):
    said: list[str] = []
    requested: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: requested.append(request.url))
    page.goto(report.as_uri())
    # Unfold everything.
    page.eval_on_selector_all(
        "details", "all => all.forEach(one => { one.removeAttribute('name'); one.open = true })"
    )
    figures = page.query_selector_all(".plot")
    assert figures
    for figure in figures:
        figure.scroll_into_view_if_needed()
        figure.wait_for_selector(".main-svg", state="attached")
        # Bars, lines and points are paths, heat maps are images. A figure with axes only has neither.
        assert figure.query_selector(".trace, .plot .points, .hm image, .waterfalllayer path"), (
            figure.get_attribute("id")
        )
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert _unreadable(page) == []
    assert said == []
    assert [url for url in requested if not url.startswith(("data:", "blob:"))] == [report.as_uri()]
    page.close()


def _unreadable(page: Any) -> list[str]:
    """Return the texts that the edge of their figure cuts off."""
    return page.evaluate(
        """() => [...document.querySelectorAll('.plot')].flatMap(plot => {
            const frame = plot.getBoundingClientRect();
            return [...plot.querySelectorAll('.main-svg text')].filter(text => {
                const box = text.getBoundingClientRect();
                return box.width && (box.left < frame.left - 1 || box.right > frame.right + 1
                    || box.top < frame.top - 1 || box.bottom > frame.bottom + 1);
            }).map(text => `${plot.id}: ${text.textContent}`);
        })"""
    )


def test_figures_are_drawn_when_they_are_looked_at(browser: Any, report: Path):
    page = browser.new_page(viewport={"width": 1440, "height": 400})
    page.goto(report.as_uri())
    page.wait_for_selector(".plot .main-svg", state="attached")
    drawn = page.eval_on_selector_all(".plot", "all => all.map(one => 'drawn' in one.dataset)")
    assert drawn[0]
    assert not drawn[-1]
    page.close()


def test_the_keyboard_reaches_figures_and_what_is_folded(browser: Any, report: Path):
    page = browser.new_page()
    page.goto(report.as_uri())
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.className || document.activeElement.tagName"))
        if page.evaluate("document.activeElement.textContent") == "Make this figure in Python":
            page.keyboard.press("Enter")
            break
    assert {"skip", "A", "plot js-plotly-plot", "SUMMARY"} <= seen
    assert page.evaluate("document.activeElement.parentElement.open")
    page.close()
