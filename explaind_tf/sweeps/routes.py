"""Which way each part of an answer is computed: counted passes decide, and a trial or the clock where counting cannot.

Costs are counted in forward passes of one example. A backward pass is two of them, a derivative in one direction
(JVP) two beside the passes that it shares with other directions.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from explaind_tf.kernel import contractions, trials
from explaind_tf.kernel.functions import Batch, StepPath, TrainingPoint
from explaind_tf.kernel.quadrature.nodes import Quadrature
from explaind_tf.replay.recorded import Grouping
from explaind_tf.sweeps.task import Task

# How much slower a pass of single examples is than one of a batch, as a guess that the clock corrects.
_LOOP_PENALTY = 5.0
# Counted costs that are closer than this factor are settled by the clock.
_CLOSE = 2.5
# Samples of the batch on which routes are tried, from so many steps.
_LOOKED_AT = 4

PartsRoute = Literal["jvp", "products", "rows"]


@dataclass(frozen=True)
class Routes:
    """How an answer is computed.

    Attributes
    ----------
    rows_by_rule : bool
        Whether gradients of measurements are made by rules.
    parts : {"jvp", "products", "rows"} or None
        How causes are split over layers or weights: a JVP for each layer; products of one backward pass; rows Φ.
    samples : str or None
        How a batch is contracted with the rows Ψ of a reverse sweep, if there is one.
    grouping : Grouping or None
        The groups of a forward sweep, if there is one.
    splits_late : bool
        Whether steps are integrated whole, and split into causes by the rows Φ that a reverse sweep makes anyway.
    """

    rows_by_rule: bool = False
    parts: PartsRoute | None = None
    samples: contractions.RouteName | None = None
    grouping: Grouping | None = None
    splits_late: bool = False

    @property
    def method(self) -> str:
        """The sweeps and routes in words."""
        parts = "" if self.parts is None else f" (parts by {self.parts})"
        sweep = "path sweep" if self.grouping is None else "path sweep, forward sweep by groups"
        reverse = "" if self.samples is None else f", reverse sweep ({self.samples})"
        return f"{sweep}{parts}{reverse}"


def choose_routes(task: Task) -> Routes:
    """Decide how a task is computed."""
    question = task.question
    needs_rows = question.keeps_samples or question.keeps_parameters or question.keeps_layers
    groups = question.groups
    grouping, reverse = None, question.keeps_samples
    if groups is not None:
        reverse = _prefers_reverse(task)
        if reverse:
            needs_rows = True
        else:
            of_row = groups.of_id[task.run.samples.id_of_row]
            grouping = Grouping(of_row, len(groups.labels), _are_coupled(task))
    by_rule = needs_rows and _rows_by_rule(task)
    splits_late = reverse and task.recorded.splits_each_alone
    in_forward = 1 if groups is None or reverse else len(groups.labels)
    return Routes(
        rows_by_rule=by_rule,
        parts=None if splits_late else _parts_route(task, by_rule, in_forward),
        splits_late=splits_late,
        samples=_sample_route(task) if reverse else None,
        grouping=grouping,
    )


def _prefers_reverse(task: Task) -> bool:
    """Whether groups are better summed of samples: a row for each measurement, instead of a JVP for each group.

    A reverse sweep does not tell in which step a prediction moved, but for a whole momentum window of rows.
    """
    question, measurements = task.question, len(task.everything) * task.outputs
    if question.keeps_steps or question.groups is None:
        return False
    batch = len(task.replay.transition(question.first).rows)
    forward = len(question.groups.labels) * 2 * len(task.everything)
    return measurements * 3 + batch < forward


def _rows_by_rule(task: Task) -> bool:
    segment = task.replay.segment(task.replay.transition(task.question.first))
    return trials.row_rules_hold(task.derivatives.measurement, segment, task.blocks[0])


def _parts_route(task: Task, by_rule: bool, groups: int) -> PartsRoute | None:
    question = task.question
    if question.keeps_parameters:
        return "rows"
    if not question.keeps_layers:
        return None
    # Data and weight decay at least, unless the samples are booked elsewhere.
    directions = 1 if question.keeps_samples else groups + 1
    layers, outputs = len(question.partition), task.outputs
    backward = "products" if by_rule else "rows"
    costs = {
        "jvp": 3.0 + 2 * directions * layers,
        backward: outputs * (3.0 + 0.2 * directions) * (1.0 if by_rule else _LOOP_PENALTY),
    }
    segment = task.replay.segment(task.replay.transition(question.first))
    block = task.blocks[0]
    quadrature = Quadrature.same(len(block))
    vectors = np.stack([segment.displacement] * directions)
    derivatives = task.derivatives

    def by_jvp() -> Any:
        repeated = np.repeat(vectors, layers, axis=0)
        return derivatives.measurement.path_jvp(segment, quadrature.by_node()[0], repeated, block)

    clocked: dict[str, Callable[[], Any]] = {
        "jvp": by_jvp,
        "products": lambda: derivatives.measurement.path_products(segment, quadrature, vectors, block),
        "rows": lambda: derivatives.measurement.path_rows(segment, quadrature, block, by_rule=False),
    }
    return _cheapest(costs, clocked)  # type: ignore[return-value]


def _are_coupled(task: Task) -> bool:
    segment, batch = _sample_batch(task)
    return len(batch) > 1 and trials.samples_are_coupled(
        task.derivatives.loss, segment.start, segment.constants, batch
    )


def _sample_route(task: Task) -> contractions.RouteName:
    """Choose how a batch is contracted with the rows; tokens and coupled samples leave no choice."""
    question = task.question
    if question.keeps_tokens:
        return "token_jvp"
    segment, batch = _sample_batch(task)
    loss, at = task.derivatives.loss, TrainingPoint(segment.start, segment.constants, batch)
    if len(batch) > 1 and trials.samples_are_coupled(loss, *at):
        return "jvp"
    if trials.sample_rules_hold(loss, *at):
        return "rules"
    if question.keeps_parameters:
        return "loop"
    rows = len(task.everything) * task.outputs
    costs = {"jvp": 3.0 + 2 * rows * max(1, len(question.layers)), "loop": 3 * _LOOP_PENALTY}
    partition = contractions.within(question.partition, task.derivatives.model.theta_size)
    psi = tf.zeros((rows, task.derivatives.model.theta_size), task.derivatives.model.dtype)
    clocked = {
        name: partial(contractions.ROUTES[name].contract, loss, at, psi, partition)  # type: ignore[index]
        for name in costs
    }
    return _cheapest(costs, clocked)  # type: ignore[return-value]


def _sample_batch(task: Task) -> tuple[StepPath, Batch]:
    """Return the largest batch of the first steps, and where the weights were."""
    steps = range(min(task.question.stop, _LOOKED_AT))
    transition = max((task.replay.transition(s) for s in steps), key=lambda t: len(t.rows))
    return task.replay.segment(transition), task.recorded.batch(transition)


def _cheapest(costs: Mapping[str, float], clocked: Mapping[str, Callable[[], Any]]) -> str:
    """Return the name of the lowest cost; those that are close to it are run, and the clock decides."""
    least = min(costs.values())
    close = [name for name, cost in costs.items() if cost <= _CLOSE * least]
    return close[0] if len(close) == 1 else min(close, key=lambda name: seconds(clocked[name]))


def seconds(function: Callable[[], Any]) -> float:
    """Return how long a call takes once it is compiled."""
    _wait(function())
    start = time.perf_counter()
    _wait(function())
    return time.perf_counter() - start


def _wait(value: Any) -> None:
    if isinstance(value, tf.Tensor):
        value.numpy()
