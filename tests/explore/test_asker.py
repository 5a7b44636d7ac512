"""One thread answers, coarse answers come first, and nobody waits for what was cancelled."""

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import xarray as xr

from explaind_tf.explore import asker as asking
from explaind_tf.explore.asker import Asker, Stage, State
from explaind_tf.explore.questions import Question
from explaind_tf.progress import Progress

PATIENCE = 30.0
FIRST, SECOND = (Question("account", (i,)) for i in (1, 2))


class Answers:
    """Answers in two stages of a few steps each, when the test lets it."""

    def __init__(self) -> None:
        self.done: list[tuple[Question, bool]] = []
        self.final: list[Question] = []
        self.go_on = threading.Event()
        self.began = threading.Event()
        self.error: BaseException | None = None

    def __call__(self, question: Question, progress: Progress) -> Iterator[Stage]:
        for is_final in (False, True):
            with progress.task("Sweep", 3) as advance:
                self.began.set()
                assert self.go_on.wait(PATIENCE)
                if self.error is not None:
                    raise self.error
                for _ in range(3):
                    advance()
            self.done.append((question, is_final))
            yield Stage(xr.Dataset({"x": ("i", np.zeros(4))}), is_final)


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def asker(answers: Answers) -> Iterator[Asker]:
    found = Asker(answers, lambda question, _: answers.final.append(question))
    found.start()
    yield found
    answers.go_on.set()
    assert found.close(PATIENCE)


def wait_for(asker: Asker, question: Question, holds: Callable[[State], bool]) -> State:
    for _ in range(int(PATIENCE * 100)):
        if holds(state := asker.state(question)):
            return state
        threading.Event().wait(0.01)
    raise AssertionError(asker.state(question))


def has(status: str) -> Callable[[State], bool]:
    return lambda state: state.status == status


def test_coarse_answers_come_before_refined_ones(asker: Asker, answers: Answers):
    asker.ask(FIRST)
    assert answers.began.wait(PATIENCE)
    assert asker.ask(SECOND).ahead == 1
    assert asker.ask(SECOND).version == asker.state(SECOND).version, "asked once"
    answers.go_on.set()
    state = wait_for(asker, SECOND, has("done"))
    assert state.stage is not None and state.stage.is_final
    assert answers.done == [(FIRST, False), (SECOND, False), (FIRST, True), (SECOND, True)]
    assert answers.final == [FIRST, SECOND]


def test_what_runs_is_told_and_can_be_cancelled(asker: Asker, answers: Answers):
    asker.ask(FIRST)
    asker.ask(SECOND)
    assert answers.began.wait(PATIENCE)
    doing = wait_for(asker, FIRST, lambda state: state.doing is not None).doing
    assert doing is not None and (doing.title, doing.done, doing.total) == ("Sweep", 0, 3)
    asker.cancel(FIRST)
    asker.cancel(SECOND)
    answers.go_on.set()
    assert asker.state(FIRST).status == asker.state(SECOND).status == "cancelled"
    assert asker.ask(FIRST).status == "cancelled", "drawing the page again does not ask again"
    asker.ask(SECOND, again=True)
    wait_for(asker, SECOND, has("done"))
    assert [question for question, _ in answers.done] == [SECOND, SECOND]


def test_what_is_done_is_not_cancelled(asker: Asker, answers: Answers):
    asker.ask(FIRST)
    answers.go_on.set()
    wait_for(asker, FIRST, has("done"))
    asker.cancel(FIRST)
    assert asker.state(FIRST).status == "done", "there is nothing to cancel"


def test_the_time_of_the_last_answer_of_a_kind_is_expected_again(asker: Asker, answers: Answers):
    answers.go_on.set()
    asker.ask(FIRST)
    wait_for(asker, FIRST, has("done"))
    answers.go_on.clear()
    asker.ask(SECOND)
    state = wait_for(asker, SECOND, has("running"))
    assert state.expected is not None and state.expected > 0


def test_a_refusal_is_told_and_others_are_answered(asker: Asker, answers: Answers):
    answers.error = ValueError("it has no such axis")
    answers.go_on.set()
    asker.ask(FIRST)
    assert wait_for(asker, FIRST, has("failed")).message == "it has no such axis"
    answers.error = None
    asker.ask(SECOND)
    wait_for(asker, SECOND, has("done"))
    assert asker.ask(FIRST).status == "failed"
    asker.ask(FIRST, again=True)
    wait_for(asker, FIRST, has("done"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_ends_the_thread_and_is_told(answers: Answers):
    asker = Asker(answers)
    answers.error = AssertionError("impossible")
    answers.go_on.set()
    asker.start()
    asker.ask(FIRST)
    assert "impossible" in wait_for(asker, FIRST, has("failed")).message
    assert asker.close(PATIENCE)
    assert not asker.is_alive


def test_an_asker_that_is_closed_ends_after_its_step(answers: Answers):
    asker = Asker(answers)
    asker.start()
    asker.ask(FIRST)
    assert answers.began.wait(PATIENCE)
    threading.Timer(0.05, answers.go_on.set).start()
    assert asker.close(PATIENCE)
    assert answers.done == []


def test_old_answers_are_forgotten_above_a_size(
    asker: Asker, answers: Answers, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(asking, "_HELD", 40)  # an answer has 32 bytes
    answers.go_on.set()
    asker.ask(FIRST)
    wait_for(asker, FIRST, has("done"))
    asker.ask(SECOND)
    wait_for(asker, SECOND, has("done"))
    assert asker.state(FIRST).status == "unknown"
