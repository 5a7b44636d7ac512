"""The walk through the page on the demo's two models and on checkpoints, at night."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from explaind_tf.explore.inputs import Inputs
from explaind_tf.explore.opening import make_session
from explaind_tf.explore.server import Server
from explaind_tf.explore.session import Session
from explaind_tf.runs import RecordedRun
from tests.cli.test_demo import TINY
from tests.explore.test_browser import Visit, browser, serving, visits, walk  # noqa: F401 - fixtures

pytestmark = [pytest.mark.slow, pytest.mark.nightly]


def _recorded(make_task: Callable[..., Any], directory: Path) -> Session:
    from explaind_tf import PathLogger, demo

    task = make_task(TINY, 0)
    demo._train(task, PathLogger(directory / "run", verbose=False), 0)
    return make_session(RecordedRun(directory / "run"), Inputs(*task.test), tolerance=task.tolerance)


def _digits(directory: Path) -> Session:
    from explaind_tf import demo

    return _recorded(demo._digits_task, directory)


def _transformer(directory: Path) -> Session:
    from explaind_tf import demo

    return _recorded(demo._addition_task, directory)


def _checkpoints(directory: Path) -> Session:
    from tests.explore.runs import TEST_IMAGES, TEST_LABELS, checkpoints

    run = checkpoints(directory)
    return make_session(run, Inputs(TEST_IMAGES, TEST_LABELS), lambda: run)


@pytest.mark.parametrize(
    "make", [_digits, _transformer, _checkpoints], ids=lambda make: make.__name__.strip("_")
)
@pytest.mark.parametrize("width", [1280, 390])
def test_a_walk(
    make: Callable[[Path], Session],
    width: int,
    visits: Callable[..., Visit],  # noqa: F811
    serving: Callable[[Session], Server],  # noqa: F811
    tmp_path: Path,
):
    session = make(tmp_path)
    scheme = "dark" if width == 390 else "light"
    visit = visits(serving(session), viewport={"width": width, "height": 900}, color_scheme=scheme)
    walk(visit, session, tmp_path, has_samples=make is not _checkpoints)
