"""Makes the pictures of docs/how-to/explore.md: ``python docs/explore_screens.py RUN INPUTS.npz``.

It needs Chromium, and the run of digits that ``explaind-tf demo`` records, with held-out digits as x and y.
"""

import io
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from explaind_tf.explore.inputs import Inputs
from explaind_tf.explore.opening import make_session
from explaind_tf.explore.server import Server
from explaind_tf.runs import RecordedRun

_WHERE: Final = Path(__file__).parent / "how-to"
_WAIT: Final = """() => {
    const list = document.querySelector('#lines ul');
    return list && list.dataset.view === (location.search || '?') && !list.children.length;
}"""
_PATIENCE: Final = 600_000
_COUNT: Final = 48

# Each screen: the part that it begins with, and whether a sample is chosen.
_SCREENS: Final = {"inputs": False, "answer": False, "samples": True}
_LOOKS: Final[dict[str, dict[str, Any]]] = {
    "wide": {"viewport": {"width": 1280, "height": 860}},
    "phone": {"viewport": {"width": 390, "height": 860}, "color_scheme": "dark"},
    "dark": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"},
}


def main(run: str, inputs: str) -> None:
    """Write a picture of each screen and look."""
    read = np.load(inputs)
    session = make_session(RecordedRun(run), Inputs(read["x"][:_COUNT], read["y"][:_COUNT]))
    server = Server(session)
    server.start()
    with sync_playwright() as playwright:
        path = os.environ.get("CHROMIUM") or shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for look, options in _LOOKS.items():
            page = browser.new_context(**options).new_page()
            page.set_default_timeout(_PATIENCE)
            _choose(page, server.url)
            for screen, has_sample in _SCREENS.items():
                if has_sample:
                    page.locator("#answer-body ol.samples a").first.click()
                    page.wait_for_function(_WAIT)
                _save(page, screen, look)
        browser.close()
    server.close()


def _choose(page: Page, url: str) -> None:
    """Choose the input that is wrong and sure."""
    page.goto(f"{url}?sort=wrong")
    page.wait_for_function(_WAIT)
    page.locator("#inputs-body ol a").first.click()
    page.wait_for_selector("#answer-body .hm image")
    page.wait_for_function(_WAIT)


def _save(page: Page, screen: str, look: str) -> None:
    page.locator(f"#{screen}").evaluate("one => one.scrollIntoView()")
    page.wait_for_timeout(1000)  # plotly draws once more after the page was laid out
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.save(_WHERE / f"explore-{screen}-{look}.webp", quality=70, method=6)


if __name__ == "__main__":
    main(*sys.argv[1:])
