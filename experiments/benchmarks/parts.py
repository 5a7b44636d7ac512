"""The parts of the measurement: each runs in its own process, takes and returns plain JSON values.

``python -m experiments.benchmarks.parts PART '{"argument": ...}'`` prints the part's result as its last line.
"""

import gc
import inspect
import itertools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import explaind_tf as xtf
from experiments.benchmarks import tasks, timing
from experiments.benchmarks.first_answers import ask_first, record_first, train_first
from experiments.benchmarks.long_runs import ask_long, open_long, record_long
from experiments.benchmarks.paper_procedure import PaperProcedure, completeness_error
from experiments.benchmarks.settings import Json, TaskSpec
from explaind_tf.analysis import fidelity
from explaind_tf.errors import UnbalancedLedgerError


@dataclass(frozen=True)
class Question:
    """A question to a run.

    Attributes
    ----------
    measure : {"outputs", "log_prob"}
        All outputs, or the log-probability of the class.
    inputs : int
        Held-out inputs.
    axes : list of str
        Axes of the ledger.
    tolerance : float
        Largest residual as a share of the movement.
    groups : int
        Groups of samples; 0 for none.
    """

    measure: str
    inputs: int
    axes: list[str]
    tolerance: float = 1e-3
    groups: int = 0


def machine() -> Json:
    """Describe the machine."""
    return timing.machine()


def record(spec: Json, run_dir: str) -> Json:
    """Record a task's training."""
    start = time.perf_counter()
    tasks.record(TaskSpec(**spec), Path(run_dir))
    return {"seconds": time.perf_counter() - start}


def attribute(spec: Json, run_dir: str, *, repeats: int = 1, plain_steps: int = 0, **asked: Any) -> Json:
    """Ask the same question several times.

    The first call traces; the others show the time without tracing. Two calls over fewer and over more steps would
    separate tracing, too. But early steps take more nodes than late ones, so the slope between the two calls is not the cost
    of a step.

    Peak memory is that of the first call, measured before any plain training.

    Parameters
    ----------
    plain_steps : int
        Steps of plain training timed before and after each repeat; 0 for none.
    **asked
        Fields of :class:`Question`.
    """
    question = Question(**asked)
    run = xtf.open_run(run_dir)
    task = tasks.make_task(TaskSpec(**spec), question.inputs)
    ask = _asking(run, task, question)
    before = timing.resident_megabytes()
    timing.reset_peak()
    first_seconds, ledger = _timed(ask)
    peak = timing.peak_megabytes()
    return {
        "steps": len(run.steps),
        "first_seconds": first_seconds,
        **_repeated(ask, task, repeats, plain_steps),
        "peak_mb": peak,
        "before_mb": before,
        "tolerance": question.tolerance,
        **_quality(ledger),
    }


def counterfactual(spec: Json, run_dir: str, *, inputs: int, repeats: int, plain_steps: int) -> Json:
    """Ask a counterfactual question about log-probabilities several times, with plain training timed around each."""
    run = xtf.open_run(run_dir)
    task = tasks.make_task(TaskSpec(**spec), inputs)
    of = xtf.measurements.log_prob(task.y)

    def ask() -> xr.Dataset:
        return run.counterfactual(task.x, of, progress=False)

    timing.reset_peak()
    first_seconds, _ = _timed(ask)
    peak = timing.peak_megabytes()
    return {
        "steps": len(run.steps),
        "first_seconds": first_seconds,
        **_repeated(ask, task, repeats, plain_steps),
        "peak_mb": peak,
    }


def calibrate(
    spec: Json,
    run_dir: str,
    *,
    inputs: int,
    tolerances: list[float],
    residual: float = np.inf,
    mean_kl: float = np.inf,
    agreement: float = 0.0,
) -> Json:
    """Find the largest tolerance that gives the accuracy that was asked for, or the last one if none does."""
    run = xtf.open_run(run_dir)
    task = tasks.make_task(TaskSpec(**spec), inputs)
    found: Json = {}
    for tolerance in tolerances:
        quality = _quality(_asking(run, task, Question("outputs", inputs, [], tolerance))())
        found = {"tolerance": tolerance, **quality}
        if (
            quality["residual"] <= residual
            and quality["mean_kl"] <= mean_kl
            and quality["agreement"] >= agreement
        ):
            break
    return found


def paper(spec: Json, run_dir: str, *, inputs: int, nodes: int, steps: int) -> Json:
    """Time some steps of the paper's procedure, whose cost per step is constant; the first step traces and is not timed."""
    run = xtf.open_run(run_dir)
    task = tasks.make_task(TaskSpec(**spec), inputs)
    timing.reset_peak()
    procedure = PaperProcedure(run, [task.x], nodes)
    first_seconds, _ = _timed(lambda: procedure.step(0))
    seconds = [_timed(lambda s=step: procedure.step(s))[0] for step in range(1, 1 + steps)]
    return {"first_seconds": first_seconds, "seconds": seconds, "peak_mb": timing.peak_megabytes()}


def paper_error(spec: Json, run_dir: str, *, inputs: int, nodes: int) -> Json:
    """Return the completeness error of the paper's procedure over the whole run."""
    run = xtf.open_run(run_dir)
    task = tasks.make_task(TaskSpec(**spec), inputs)
    return {"residual": completeness_error(run, [task.x], nodes)}


def recording(spec: Json, run_dir: str, *, repeats: int) -> Json:
    """Time fits of ``spec.steps`` steps, alternately with and without a logger; the first of each is not timed."""
    task = tasks.make_task(TaskSpec(**spec))
    logger = xtf.PathLogger(run_dir, verbose=False)
    recorded, plain = task.model(is_recorded=True), task.model(is_recorded=False)
    tapped = logger.tap(task.dataset)
    result: Json = {"plain": [], "recorded": [], "finish": []}
    timing.reset_peak()
    for repeat in range(repeats + 1):
        clock = timing.StepClock()
        tasks.fit(plain, task.dataset, task.spec.steps + 1, clock)
        plain_step = clock.seconds_per_step
        # The logger comes first, so its work after a step belongs to the step. Its work after the last step is timed apart.
        clock = timing.StepClock()
        total, _ = _timed(lambda c=clock: tasks.fit(recorded, tapped, task.spec.steps + 1, logger, c))
        if repeat:  # the first round traces, and stores each sample
            result["plain"].append(plain_step)
            result["recorded"].append(clock.seconds_per_step)
            result["finish"].append(total - clock.seconds_per_step * (task.spec.steps + 1))
    return result | {"peak_mb": timing.peak_megabytes()}


def _asking(run: xtf.Run, task: tasks.Task, question: Question) -> Callable[[], Any]:
    """Return a function that asks the question each time it is called."""
    of = {"outputs": xtf.measurements.outputs(), "log_prob": xtf.measurements.log_prob(task.y)}[
        question.measure
    ]
    if question.groups and "groups" not in inspect.signature(run.attribute).parameters:
        raise NotImplementedError("this version of the package has no groups of samples")
    labels = {"groups": np.arange(len(run.samples.ids)) % question.groups} if question.groups else {}
    return lambda: run.attribute(
        task.x, of, axes=question.axes, tolerance=question.tolerance, progress=False, **labels
    )


def _repeated(ask: Callable[[], Any], task: tasks.Task, repeats: int, plain_steps: int) -> Json:
    """Time a question several times, and ``plain_steps`` steps of plain training around each; 0 for none."""
    plain = timing.PlainTraining(task) if plain_steps else None
    seconds: list[float] = []
    around = [] if plain is None else [plain.seconds_per_step(plain_steps)]
    for _ in range(repeats):
        gc.collect()  # an earlier answer's, not this call's
        seconds.append(_timed(ask)[0])
        if plain is not None:
            around.append(plain.seconds_per_step(plain_steps))
    # The load of the machine may change during a long call, so plain training is timed before and after it.
    unit = [(before + after) / 2 for before, after in itertools.pairwise(around)]
    return {"seconds": seconds, "training_step_seconds": unit}


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def _quality(ledger: xr.Dataset) -> Json:
    """Return the accuracy of a ledger."""
    try:
        ledger.explaind.check()
        balances = True
    except UnbalancedLedgerError:  # the time that it took is a result all the same
        balances = False
    quality = {
        "balances": float(balances),
        "residual": float(np.abs(ledger.explaind.total("residual")).max()),
        "movement": float(ledger.movement.max()),
        "nodes": int(ledger.attrs.get("quadrature_nodes", 0)),
        "mean_kl": 0.0,
        "agreement": 1.0,
    }
    if ledger.sizes["output"] > 1:
        found = fidelity(ledger)
        quality |= {"mean_kl": found.mean_kl, "agreement": found.agreement}
    return quality


PARTS: dict[str, Callable[..., Json]] = {
    part.__name__: part
    for part in (
        machine,
        record,
        attribute,
        counterfactual,
        calibrate,
        paper,
        paper_error,
        recording,
        record_long,
        open_long,
        ask_long,
        train_first,
        record_first,
        ask_first,
    )
}

if __name__ == "__main__":
    print(json.dumps(PARTS[sys.argv[1]](**json.loads(sys.argv[2]))))
