"""`Asker`: answers questions one at a time, in a thread of its own, the coarse answers first."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from queue import PriorityQueue
from typing import Any, Final, Literal

from explaind_tf.errors import UnbalancedLedgerError
from explaind_tf.explore.questions import Question
from explaind_tf.progress import Progress

Status = Literal["unknown", "waiting", "running", "done", "cancelled", "failed"]

# What a question may be refused with. Other errors are bugs: they end the thread, and the page says so.
REFUSALS: Final = (ImportError, MemoryError, OSError, UnbalancedLedgerError, ValueError, TypeError)
_LAST: Final = 10**6
# Most bytes of answers in memory; others were kept on disk.
_HELD: Final = 2**30


class Cancelled(Exception):
    """Raised within a sweep when nobody wants its answer any more."""


@dataclass(frozen=True)
class Stage:
    """An answer as far as it is known.

    Attributes
    ----------
    ledger : xarray.Dataset
        The answer. Of the question to load the model, what is known once it is loaded.
    is_final : bool
        Whether it is the last stage; a coarse answer is not.
    seconds : float
        How long it took.
    drawn : dict
        What was drawn of it, so that another view of the same answer is drawn at once.
    """

    ledger: Any
    is_final: bool
    seconds: float = 0.0
    drawn: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return what ``make`` returns, which is called once for a key."""
        if key not in self.drawn:
            self.drawn[key] = make()
        return self.drawn[key]


@dataclass(frozen=True)
class Doing:
    """What is being computed now.

    Attributes
    ----------
    title : str
        The sweep, in words.
    done, total : int
        Steps of it.
    seconds_left : float or None
        Of this sweep, as its steps went so far; None before the first.
    """

    title: str
    done: int
    total: int
    seconds_left: float | None


@dataclass(frozen=True)
class State:
    """What is known about a question.

    Attributes
    ----------
    status : str
        Whether it waits, runs, is done, was cancelled or failed; ``"unknown"`` if it was never asked.
    stage : Stage or None
        The best answer so far.
    ahead : int
        How many others are answered first, while it waits.
    doing : Doing or None
        While it runs.
    expected : float or None
        Seconds that this stage took for the last question of this kind.
    message : str
        Why it failed.
    version : int
        Grows whenever there is another stage or status.
    """

    status: Status = "unknown"
    stage: Stage | None = None
    ahead: int = 0
    doing: Doing | None = None
    expected: float | None = None
    message: str = ""
    version: int = 0


# Yields the stages of an answer, the last one final.
Answering = Callable[[Question, Progress], Iterator[Stage]]


@dataclass(order=True)
class _Job:
    """A question's next stage. Earlier stages come first, then earlier questions."""

    stage: int
    number: int
    question: Question | None = field(compare=False, default=None)
    stages: Iterator[Stage] = field(compare=False, default_factory=lambda: iter(()))


class Asker:
    """Answers questions in one thread, so that one computation runs at a time. The others wait.

    Parameters
    ----------
    answering : callable
        Yields the stages of an answer. It is called and advanced in the thread only.
    on_final : callable
        Called in the thread with each question and its final stage.
    """

    def __init__(
        self, answering: Answering, on_final: Callable[[Question, Stage], None] = lambda *_: None
    ) -> None:
        self._answering, self._on_final = answering, on_final
        self._queue: PriorityQueue[_Job] = PriorityQueue()
        self._numbers = count()
        self._lock = threading.Lock()
        self._states: dict[Question, State] = {}
        self._seconds: dict[tuple[str, int], float] = {}
        self._running: _Job | None = None
        # The job of each question whose answer is still wanted. One that was cancelled may be asked again meanwhile.
        self._wanted: dict[Question, int] = {}
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name="explaind_tf answers", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def ask(self, question: Question, *, again: bool = False) -> State:
        """Queue a question, unless it was asked before; return what is known about it.

        Parameters
        ----------
        question : Question
            What to answer.
        again : bool
            Whether to queue it again if it was cancelled or failed.
        """
        with self._lock:
            # Last in the order, so that it is forgotten last.
            known = self._states.pop(question, State())
            self._states[question] = known
            if known.status == "unknown" or (again and known.status in ("cancelled", "failed")):
                self._set(question, status="waiting", message="", doing=None)
                self._put(0, question, iter(()))
        return self.state(question)

    def know(self, question: Question, stage: Stage) -> None:
        """Take over an answer that was found elsewhere."""
        with self._lock:
            self._set(question, status="done", stage=stage)

    def state(self, question: Question) -> State:
        """Return what is known about a question."""
        with self._lock:
            known = self._states.get(question, State())
            if known.status != "waiting":
                return known
            waiting = sorted(job for job in self._queue.queue if job.question is not None)
            ahead = next((i for i, job in enumerate(waiting) if job.question == question), 0)
            return replace(known, ahead=ahead + (self._running is not None))

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def cancel(self, question: Question) -> None:
        """Answer a question no further. What is known of it stays. A sweep that runs ends after its step."""
        with self._lock:
            if self._states.get(question, State()).status in ("waiting", "running"):
                self._wanted.pop(question, None)
                self._set(question, status="cancelled", doing=None)

    def close(self, seconds: float) -> bool:
        """End the thread after the step that it is in. Return whether it ended within the time."""
        with self._lock:
            self._is_closing = True
        self._queue.put(_Job(_LAST, next(self._numbers)))
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _put(self, stage: int, question: Question, stages: Iterator[Stage]) -> None:
        job = _Job(stage, next(self._numbers), question, stages)
        self._wanted[question] = job.number
        self._queue.put(job)

    def _set(self, question: Question, **changes: object) -> None:
        known = self._states.get(question, State())
        self._states[question] = replace(known, version=known.version + 1, **changes)  # type: ignore[arg-type]

    def _forget(self) -> None:
        """Forget the answers that were asked for longest ago, above a size."""
        sizes = {
            q: getattr(s.stage.ledger, "nbytes", 0) for q, s in self._states.items() if s.stage is not None
        }
        for question, size in list(sizes.items())[:-1]:
            if sum(sizes.values()) <= _HELD:
                return
            if size and self._states[question].status == "done":
                del self._states[question], sizes[question]

    def _work(self) -> None:
        while not self._is_closing:
            job = self._queue.get()
            if job.question is None:
                return
            with self._lock:
                if not self._is_wanted(job) or self._is_closing:
                    continue
                self._running = job
                expected = self._seconds.get((job.question.kind, job.stage))
                self._set(job.question, status="running", expected=expected)
            try:
                self._advance(job, job.question)
            finally:
                with self._lock:
                    self._running = None

    def _advance(self, job: _Job, question: Question) -> None:
        """Compute the next stage of a question, and queue the one after it."""
        began = time.perf_counter()
        # A generator that raised is finished, so one that was cancelled begins anew.
        stages = job.stages if job.stage else self._answering(question, Watched(self._watch))
        try:
            stage = next(stages)
        except Cancelled:
            return
        except REFUSALS as error:
            with self._lock:
                if self._is_wanted(job):
                    said = str(error) or type(error).__name__
                    self._set(question, status="failed", message=said, doing=None)
            return
        except BaseException as error:
            with self._lock:
                self._set(question, status="failed", message=f"a bug: {error!r}", doing=None)
            raise
        stage = replace(stage, seconds=time.perf_counter() - began)
        with self._lock:
            self._seconds[question.kind, job.stage] = stage.seconds
            if self._is_wanted(job):
                self._set(question, status="done" if stage.is_final else "waiting", stage=stage, doing=None)
                if not stage.is_final:
                    self._put(job.stage + 1, question, stages)
            self._forget()
        if stage.is_final:
            self._on_final(question, stage)

    def _is_wanted(self, job: _Job) -> bool:
        return job.question is not None and self._wanted.get(job.question) == job.number

    def _watch(self, doing: Doing) -> None:
        """Note what the running job does, and end it if nobody wants its answer."""
        with self._lock:
            job = self._running
            assert job is not None and job.question is not None  # who calls this is its sweep
            if self._is_closing or not self._is_wanted(job):
                raise Cancelled
            # No new version: a page is not drawn again for a step.
            self._states[job.question] = replace(self._states[job.question], doing=doing)


class Watched(Progress):
    """Progress that is told to a function instead of drawn; the function may raise to end the sweep."""

    def __init__(self, watch: Callable[[Doing], None]) -> None:
        super().__init__(enabled=False)
        self._watch = watch

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Callable[[], None]]:
        """Open a task and yield the function that advances it by one."""
        began, done = time.perf_counter(), 0
        self._watch(Doing(description, 0, total, None))

        def advance() -> None:
            nonlocal done
            done += 1
            left = (time.perf_counter() - began) / done * (total - done)
            self._watch(Doing(description, done, total, left))

        yield advance
