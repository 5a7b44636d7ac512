"""Sessions about small runs, loaded once."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from explaind_tf.explore.inputs import Inputs
from explaind_tf.explore.opening import make_session
from explaind_tf.explore.questions import LOAD, Question
from explaind_tf.explore.session import Session
from explaind_tf.explore.view import View
from explaind_tf.runs import RecordedRun

PATIENCE = 120.0


def settled(session: Session, view: View | None = None) -> dict[Question, Any]:
    """Return the final answers of a view, once they are there; without a view, wait for the model."""
    for _ in range(int(PATIENCE * 50)):
        known = session.ask(view) if view is not None and session.loaded is not None else []
        states = [(LOAD, session.loading), *known]
        failed = [state.message for _, state in states if state.status == "failed"]
        assert not failed, failed
        if all(state.status in ("done", "cancelled") for _, state in states):
            return {question: state.stage for question, state in known if state.stage is not None}
        threading.Event().wait(0.02)
    raise AssertionError(states)


def made(reader: Any, inputs: Inputs, **options: Any) -> Session:
    session = make_session(reader, inputs, **options)
    session.start()
    settled(session)
    return session


@pytest.fixture(scope="session")
def image_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.explore.runs import record_classifier

    ids = [f"sample {i}" for i in range(12)]
    return record_classifier(tmp_path_factory.mktemp("images") / "run", ids)


@pytest.fixture(scope="session")
def image_session(image_run: Path) -> Iterator[Session]:
    from tests.explore.runs import TEST_IMAGES, TEST_LABELS

    code = ["from tests.explore.runs import TEST_IMAGES as x, TEST_LABELS as y"]
    session = made(RecordedRun(image_run), Inputs(TEST_IMAGES, TEST_LABELS, 0, code))
    yield session
    assert session.asker.close(PATIENCE)


@pytest.fixture
def session_of() -> Iterator[Callable[..., Session]]:
    """Makes sessions that end with the test."""
    opened: list[Session] = []

    def make(reader: Any, inputs: Inputs, **options: Any) -> Session:
        opened.append(made(reader, inputs, **options))
        return opened[-1]

    yield make
    for session in opened:
        assert session.asker.close(PATIENCE)
