"""A browser walks through the page: by mouse and keyboard, at two widths, in the dark, and axe finds nothing."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from explaind_tf.explore import reading
from explaind_tf.explore.inputs import Inputs
from explaind_tf.explore.opening import make_session
from explaind_tf.explore.server import Server
from explaind_tf.explore.session import Session
from explaind_tf.explore.view import view_of
from explaind_tf.runs import RecordedRun
from tests.explore.conftest import PATIENCE, settled

pytestmark = pytest.mark.slow

TIMEOUT = PATIENCE * 1000
# WCAG 2.2, levels A and AA.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = [os.environ.get("CHROMIUM"), playwright.chromium.executable_path]
        found += [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
        path = next((one for one in found if one and Path(one).exists()), None)
        if path is None:
            pytest.skip(
                "needs Chromium: playwright install chromium, or apt-get install chromium, or its path in CHROMIUM"
            )
        # Root in a container has no sandbox; what is opened was written by the test.
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Visit:
    """A browser's visit to a page, and what the browser complained of."""

    def __init__(self, browser: Any, server: Server, **options: Any) -> None:
        self.server = server
        self.said: list[str] = []
        self.requested: list[str] = []
        context = browser.new_context(permissions=["clipboard-read", "clipboard-write"], **options)
        self.page = context.new_page()
        self.page.set_default_timeout(TIMEOUT)
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.requested.append(request.url))

    def open(self, query: str = "") -> None:
        self.page.goto(f"{self.server.url}{query}")
        self.settle()

    def settle(self) -> None:
        """Wait until all is computed and drawn."""
        self.page.wait_for_function(
            """() => {
                const list = document.querySelector('#lines ul');
                return list && list.dataset.view === (location.search || '?') && !list.children.length;
            }"""
        )
        self.page.wait_for_function("() => !document.querySelector('[data-dash-is-loading]')")
        self.page.wait_for_function("() => !document.querySelector('.dash-graph--pending')")

    def follow(self, name: str, within: str = "main") -> None:
        """Choose a link by its name."""
        self.page.locator(within).get_by_role("link", name=name, exact=True).first.click()
        self.settle()

    @property
    def query(self) -> str:
        return re.sub(r"^[^?]*", "", self.page.url)

    def violations(self) -> list[str]:
        from axe_playwright_python.sync_playwright import Axe

        # Plotly's text takes its colours from the page; axe sees no text behind pictures.
        options = {"runOnly": {"type": "tag", "values": RULES}}
        found = Axe().run(self.page, options=options).response["violations"]
        return [
            f"{one['id']}: {one['help']}: {[node['html'][:200] for node in one['nodes']][:3]}"
            for one in found
        ]

    def wider_than(self, width: int) -> list[str]:
        """Return what makes the page scroll sideways."""
        return self.page.evaluate(
            """width => document.documentElement.scrollWidth <= width ? [] : [...document.querySelectorAll('main *')]
                .filter(one => one.getBoundingClientRect().right > width).map(one => one.outerHTML.slice(0, 200))""",
            width,
        )

    def check(self) -> None:
        """Hold the screen against what every screen must hold."""
        assert self.violations() == []
        width = self.page.viewport_size["width"]
        assert self.wider_than(width) == []
        assert self.said == []
        elsewhere = [url for url in self.requested if not url.startswith((self.server.url, "data:", "blob:"))]
        assert elsewhere == []


@pytest.fixture
def visits(browser: Any) -> Iterator[Callable[..., Visit]]:
    opened: list[Visit] = []

    def visit(server: Server, **options: Any) -> Visit:
        opened.append(Visit(browser, server, **options))
        return opened[-1]

    yield visit
    for one in opened:
        one.page.context.close()


@pytest.fixture
def serving() -> Iterator[Callable[[Session], Server]]:
    opened: list[Server] = []

    def serve(session: Session) -> Server:
        opened.append(Server(session))
        opened[-1].start()
        return opened[-1]

    yield serve
    for server in opened:
        assert server.close()


def numbers_of(code: str, x: Any) -> Any:
    """Run Python as a reader would paste it who has the inputs, and return its ``numbers``."""
    scope: dict[str, Any] = {"x": x}
    exec(code, scope)
    return scope["numbers"]


def walk(visit: Visit, session: Session, tmp_path: Path, *, has_samples: bool) -> None:
    """Open, sort, choose, look, click, copy, reload, save."""
    page = visit.page
    visit.open()
    visit.check()
    visit.follow("wrong and sure first" if session.inputs.y is not None else "largest movement first")
    first = page.locator("#inputs-body ol a").first
    name = first.inner_text()
    first.click()
    visit.settle()
    visit.check()
    position = view_of(visit.query).inputs[0]
    assert name == session.shown.name(position)
    assert page.locator("#answer-body .js-plotly-plot .hm image").count() == 1
    if has_samples:
        page.locator("#answer-body ol.samples a").first.click()
        visit.settle()
        chosen = view_of(visit.query).samples
        assert len(chosen) == 1
        assert (
            page.locator("#samples-body table caption").filter(has_text="Inputs whose number was").count()
            >= 1
        )
        visit.check()
    _click_into_the_map(visit)
    view = view_of(visit.query)
    assert view.step is not None and view.layer in session.run.layers
    _by_keyboard(visit)
    assert view_of(visit.query).step != view.step
    code = _copied(visit)
    view = view_of(visit.query)
    stage = next(s for q, s in settled(session, view).items() if q.kind == "account")
    if has_samples:
        entries = reading.entries_of(stage.ledger, 0, step=view.step, layer=view.layer)
        np.testing.assert_array_equal(numbers_of(code, session.inputs.x).values, entries.values)
    before = [page.locator(f"#{part}-body").inner_text() for part in ("inputs", "answer", "samples")]
    page.reload()
    visit.settle()
    assert [page.locator(f"#{part}-body").inner_text() for part in ("inputs", "answer", "samples")] == before
    with page.expect_download() as download:
        page.get_by_role("link", name="numbers as CSV").click()
    download.value.save_as(tmp_path / "saved.csv")
    assert "change" in (tmp_path / "saved.csv").read_text().splitlines()[0]
    visit.check()


def _click_into_the_map(visit: Visit) -> None:
    box = visit.page.locator("#heat .nsewdrag").first.bounding_box()
    visit.page.locator("#heat").scroll_into_view_if_needed()
    box = visit.page.locator("#heat .nsewdrag").first.bounding_box()
    visit.page.mouse.click(box["x"] + box["width"] * 0.9, box["y"] + box["height"] * 0.9)
    visit.page.wait_for_function("() => location.search.includes('step=')")
    visit.settle()


def _by_keyboard(visit: Visit) -> None:
    """Choose the first step in its table without a mouse."""
    page = visit.page
    summary = page.locator("#answer-body summary", has_text="Steps, as a table")
    summary.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "A"
    before = page.url
    page.keyboard.press("Enter")
    page.wait_for_function(f"() => location.href != {before!r}")
    visit.settle()


def _copied(visit: Visit) -> str:
    # The clipboard may hold what another test copied.
    visit.page.evaluate("navigator.clipboard.writeText('nothing')")
    visit.page.get_by_title("copy").first.click()
    for _ in range(int(PATIENCE * 10)):
        if (copied := visit.page.evaluate("navigator.clipboard.readText()")) != "nothing":
            return copied
        visit.page.wait_for_timeout(100)
    raise AssertionError("nothing was copied")


def test_the_page_in_a_browser(image_session: Session, visits: Callable[..., Visit]):
    server = Server(image_session)
    server.start()
    visit = visits(server, viewport={"width": 390, "height": 800}, color_scheme="dark")
    visit.open("?input=2")
    visit.follow("wrong and sure first")
    assert visit.query == "?sort=wrong&input=2"
    assert visit.page.locator("#answer-body .js-plotly-plot .hm image").count() == 1
    visit.check()
    server.stop()


@pytest.mark.nightly
def test_a_walk_through_the_page(image_session: Session, visits: Callable[..., Visit], tmp_path: Path):
    server = Server(image_session)
    server.start()
    visit = visits(server, viewport={"width": 1280, "height": 900})
    walk(visit, image_session, tmp_path, has_samples=True)
    server.stop()


@pytest.mark.nightly
def test_hostile_text_is_text_in_a_browser(
    visits: Callable[..., Visit], serving: Callable[[Session], Server], tmp_path: Path
):
    from tests.explore.runs import HOSTILE, TEST_IMAGES, record_classifier

    run_dir = record_classifier(tmp_path / "run", HOSTILE)
    session = make_session(RecordedRun(run_dir), Inputs(TEST_IMAGES, np.array(HOSTILE[:9])))
    visit = visits(serving(session), viewport={"width": 390, "height": 800})
    visit.open("?input=0&input=1")
    visit.page.locator("#answer-body ol.samples a", has_text="<script>").first.click()
    visit.settle()
    visit.check()
    assert visit.page.title() == "Explore run"
    assert visit.page.locator("main script, main img[src=x]").count() == 0


@pytest.mark.nightly
def test_a_long_answer_is_cancelled(
    image_run: Path,
    visits: Callable[..., Visit],
    serving: Callable[[Session], Server],
    monkeypatch: pytest.MonkeyPatch,
):
    import threading

    from explaind_tf.explore.asker import Watched
    from tests.explore.runs import TEST_IMAGES

    session = make_session(RecordedRun(image_run), Inputs(TEST_IMAGES * np.float32(0.5)))
    visit = visits(serving(session), viewport={"width": 1280, "height": 900})
    visit.open()
    go_on = threading.Event()
    task = Watched.task

    def slow(self: Any, description: str, total: int) -> Any:
        go_on.wait(PATIENCE)
        return task(self, description, total)

    monkeypatch.setattr(Watched, "task", slow)
    page = visit.page
    page.locator("#inputs-body ol a").first.click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("cancelled").wait_for()
    assert visit.violations() == []
    go_on.set()
    page.get_by_role("button", name="Ask again").click()
    visit.settle()
    assert page.locator("#answer-body .js-plotly-plot").count() == 1
