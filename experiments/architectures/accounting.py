"""Train, record and account for one architecture.

``python -m experiments.architectures.accounting NAME STEPS RUN_DIR`` prints what was found as a JSON object: after the
training, and again after each question. The last line has all of it.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

import explaind_tf as xtf
from experiments.architectures.example import Example
from experiments.architectures.registry import example_of
from experiments.classifiers import balanced_ledger, compiled

QUESTIONS: tuple[tuple[str, ...], ...] = ((), ("layer",), ("sample",))
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Spent:
    """Seconds that something took, with tracing.

    Attributes
    ----------
    wall : float
        By the clock.
    cpu : float
        Of all threads of the process, user and system. Less than ``wall`` if others used the machine.
    """

    wall: float
    cpu: float


@dataclass(frozen=True)
class Answer:
    """What one question took and found.

    Attributes
    ----------
    spent : Spent
        Time.
    residual : float or None
        Largest residual as a share of the movement; None if there is no ledger that balances.
    error : str
        The error if there is none; otherwise empty.
    """

    spent: Spent
    residual: float | None
    error: str = ""


@dataclass(frozen=True)
class Account:
    """What was found of one architecture.

    Attributes
    ----------
    name : str
        The architecture.
    steps : int
        Training steps.
    parameters, layers : int
        Size of the model.
    training : Spent
        Time of the recorded training.
    verifying : Spent
        Time of ``verify``.
    answers : tuple of Answer
        One for each question that was asked so far.
    """

    name: str
    steps: int
    parameters: int
    layers: int
    training: Spent
    verifying: Spent
    answers: tuple[Answer, ...] = ()


def accounts(name: str, steps: int, run_dir: Path) -> Iterator[Account]:
    """Train and record an architecture, verify the record, and ask each question; yield what is known each time."""
    keras.utils.set_random_seed(0)
    example = example_of(name)
    training, run = _timed(lambda: record(example, steps, run_dir))
    verifying, _ = _timed(lambda: run.verify(progress=False))
    account = Account(
        name=name,
        steps=steps,
        parameters=example.model.count_params(),
        layers=len(example.model._flatten_layers(include_self=False)),
        training=training,
        verifying=verifying,
    )
    yield account
    for axes in QUESTIONS:
        account = dataclasses.replace(account, answers=(*account.answers, _answer(run, example, axes)))
        yield account


def record(example: Example, steps: int, run_dir: Path) -> xtf.Run:
    """Train a model for some steps, and open the recorded run."""
    compiled(example.model, xtf.PathAdamW(1e-3), jit_compile=False)
    logger = xtf.PathLogger(run_dir, verbose=False)
    dataset = logger.tap(example.dataset)
    example.model.fit(dataset, steps_per_epoch=steps, callbacks=[logger], verbose=0, shuffle=False)
    return xtf.open_run(run_dir)


def ask(run: xtf.Run, example: Example, axes: tuple[str, ...]) -> float:
    """Ask one question, and return the largest residual as a share of the movement.

    Raises
    ------
    UnbalancedLedgerError
        If it exceeds the tolerance.
    """
    ledger = balanced_ledger(
        run, example.asked, example.measurement, axes=axes, tolerance=TOLERANCE, progress=False
    )
    return float((abs(ledger.explaind.total("residual")) / ledger.movement).max())


def _answer(run: xtf.Run, example: Example, axes: tuple[str, ...]) -> Answer:
    """Ask one question; an error is an answer, too."""

    def answer() -> tuple[float | None, str]:
        try:
            return ask(run, example, axes), ""
        except Exception as error:  # must not lose the other answers
            return None, f"{type(error).__name__}: {error}"

    spent, (residual, error) = _timed(answer)
    return Answer(spent, residual, error)


def _timed(call: Callable[[], Any]) -> tuple[Spent, Any]:
    """Return the seconds that a call took, and its result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return Spent(time.perf_counter() - wall, time.process_time() - cpu), result


if __name__ == "__main__":
    for found in accounts(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])):
        print(json.dumps(dataclasses.asdict(found)), flush=True)
