"""Train, record and account for one architecture.

``python -m experiments.architectures.accounting NAME STEPS RUN_DIR`` prints what was found as a JSON object, its last line.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras

import explaind_tf as xtf
from experiments.architectures.example import Example
from experiments.architectures.registry import ARCHITECTURES
from experiments.classifiers import balanced_ledger, compiled

QUESTIONS: tuple[tuple[str, ...], ...] = ((), ("layer",), ("sample",))
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Answer:
    """What one question took and found.

    Attributes
    ----------
    seconds : float
        Wall time, with tracing.
    residual : float or None
        Largest residual as a share of the movement; None if there is no ledger that balances.
    error : str
        The error if there is none; otherwise empty.
    """

    seconds: float
    residual: float | None
    error: str = ""


@dataclass(frozen=True)
class Account:
    """What was found of one architecture.

    Attributes
    ----------
    name : str
        The architecture.
    parameters, layers : int
        Size of the model.
    training : float
        Seconds of the recorded training, with tracing.
    verifying : float
        Seconds of ``verify``.
    answers : list of Answer
        One for each question.
    """

    name: str
    parameters: int
    layers: int
    training: float
    verifying: float
    answers: list[Answer]


def account_for(name: str, steps: int, run_dir: Path) -> Account:
    """Train and record an architecture, verify the record, and ask each question."""
    keras.utils.set_random_seed(0)
    example = ARCHITECTURES[name]()
    training, run = _timed(lambda: record(example, steps, run_dir))
    verifying, _ = _timed(lambda: run.verify(progress=False))
    return Account(
        name=name,
        parameters=example.model.count_params(),
        layers=len(example.model._flatten_layers(include_self=False)),
        training=training,
        verifying=verifying,
        answers=[_answer(run, example, axes) for axes in QUESTIONS],
    )


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
    start = time.perf_counter()
    try:
        residual = ask(run, example, axes)
    except Exception as error:  # must not lose the other answers
        return Answer(time.perf_counter() - start, None, f"{type(error).__name__}: {error}")
    return Answer(time.perf_counter() - start, residual)


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that a call took, and its result."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


if __name__ == "__main__":
    print(json.dumps(asdict(account_for(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))))
