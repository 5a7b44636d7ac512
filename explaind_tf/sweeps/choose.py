"""Chooses the route of each part of an answer: by counted passes, or by a trial or the clock where counts do not decide.

Costs are counted in forward passes of one example. A backward pass counts as two. So does a Jacobian–vector product
(JVP), besides the passes that it shares with other directions.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from explaind_tf.kernel import contractions, trials
from explaind_tf.kernel.contractions import ROUTES, Route, RouteName
from explaind_tf.kernel.derivatives.measurement import RowsRoute
from explaind_tf.kernel.functions import TrainingPoint
from explaind_tf.kernel.quadrature.nodes import Quadrature
from explaind_tf.replay.path_replay import Grouping
from explaind_tf.sweeps.clock import CLOSE, cheapest
from explaind_tf.sweeps.parts import PartsByJvp, PartsByProducts, PartsByRows, PartsRoute
from explaind_tf.sweeps.path_sweep import PathSweep
from explaind_tf.sweeps.reverse_sweep import ReverseSweep
from explaind_tf.sweeps.routes import Routes
from explaind_tf.sweeps.sweep import Sweep
from explaind_tf.sweeps.task import Task

# A step is usually integrated in two directions at once: the samples' share and weight decay's.
_CAUSES = 2
# A guess of how much slower passes of single examples are than one of their batch. The clock corrects it.
_LOOP_PENALTY = 5.0
# Routes are tried on the largest batch of so many first steps.
_LOOKED_AT = 4
# Weights and activations of a forward pass, times inputs and steps. Below this, counts alone decide: compiling a second
# route for the clock would take longer than either route.
_WORTH_CLOCKING = 1e8
# Up to so many gradients of measurements, or of samples, take a call each, and more for each operation of the measurement:
# to trace graphs that compute many at once takes longer, the larger the model is.
_FEW_CALLS, _CALLS_AN_OPERATION = 32, 0.25


def sweeps_of(task: Task, routes: Routes) -> tuple[PathSweep, *tuple[Sweep, ...]]:
    """Return the sweeps of an answer, in the order in which they run."""
    path = PathSweep(task, routes)
    return (path,) if routes.samples is None else (path, ReverseSweep(task, routes, path.found))


def choose_routes(task: Task) -> Routes:
    """Decide how a task is computed."""
    question = task.question
    groups = question.groups
    grouping, reverse = None, question.keeps_samples
    if groups is not None:
        reverse = _prefers_reverse(task)
        if not reverse:
            of_row = groups.of_id[task.run.samples.id_of_row]
            grouping = Grouping(of_row, len(groups.labels), _are_coupled(task))
    splits_late = reverse and task.recorded.splits_each_alone
    in_forward = 1 if groups is None or reverse else len(groups.labels)
    # Without rows there is nothing to try.
    needs_rows = reverse or question.keeps_parameters
    rows = _rows_route(task, 1 if splits_late else _CAUSES) if needs_rows else None
    return Routes(
        rows=rows or "loop",
        parts=None if splits_late else _parts_route(task, rows, in_forward),
        splits_late=splits_late,
        samples=_sample_route(task) if reverse else None,
        grouping=grouping,
    )


def _prefers_reverse(task: Task) -> bool:
    """Whether groups cost less as sums of samples: a row for each measurement, instead of a JVP for each group.

    A reverse sweep knows the step in which a prediction moved only if it holds a whole momentum window of rows.
    """
    question, measurements = task.question, len(task.everything) * task.outputs
    if question.keeps_steps or question.groups is None:
        return False
    batch = len(task.replay.step(question.first).transition.rows)
    forward = len(question.groups.labels) * 2 * len(task.everything)
    return measurements * 3 + batch < forward


def _rows_route(task: Task, at_once: int) -> RowsRoute:
    if _has_few_rows(task):
        return "calls"
    path = task.replay.step(task.question.first).path
    hold = trials.row_rules_hold(task.derivatives.measurement, path, task.blocks[0], at_once=at_once)
    return "rules" if hold else "loop"


def few_calls(task: Task) -> float:
    """Return how many gradients take a call each rather than a graph that computes many at once."""
    return _FEW_CALLS + _CALLS_AN_OPERATION * task.derivatives.measurement.operation_count


def _has_few_rows(task: Task) -> bool:
    return task.steps * len(task.everything) * task.outputs <= few_calls(task)


def _parts_route(task: Task, rows: RowsRoute | None, groups: int) -> PartsRoute | None:
    """Choose how causes are split; the route of rows is None if no other part of the answer needs rows."""
    question = task.question
    if question.keeps_parameters:
        assert rows is not None
        return PartsByRows(rows)
    if not question.keeps_layers:
        return None
    # At least data and weight decay, unless the reverse sweep yields the samples' entries.
    directions = 1 if question.keeps_samples else groups + 1
    layers, outputs = len(question.partition), task.outputs
    costs: dict[str, float] = {PartsByJvp.name: 3.0 + 2 * directions * layers}
    backward_pass = outputs * (3.0 + 0.2 * directions)
    if backward_pass > CLOSE * costs[PartsByJvp.name]:
        return PartsByJvp()
    path, block = task.replay.step(question.first).path, task.blocks[0]
    measurement = task.derivatives.measurement
    if rows is None and _has_few_rows(task):
        rows = "calls"
    if rows is None:
        hold = trials.row_products_hold(measurement, path, block, at_once=_CAUSES)
        rows = "rules" if hold else "loop"
    backward: PartsRoute = PartsByProducts() if rows == "rules" else PartsByRows(rows)
    costs[backward.name] = backward_pass * (1.0 if rows == "rules" else _LOOP_PENALTY)
    quadrature = Quadrature.same(len(block))

    def vectors(parts: int = 1) -> np.ndarray:
        return np.stack([path.displacement] * directions * parts)

    def by_jvp() -> Any:
        repeated = vectors(layers)
        return measurement.path_jvp(path, quadrature.by_node()[0], repeated, block)

    clocked: dict[str, Callable[[], Any]] = {
        PartsByJvp.name: by_jvp,
        PartsByProducts.name: lambda: measurement.path_products(path, quadrature, vectors(), block),
        PartsByRows.name: lambda: measurement.path_rows(path, quadrature, block, route=rows),
    }
    chosen = cheapest(costs, clocked, is_long=_is_long(task))
    return PartsByJvp() if chosen == PartsByJvp.name else backward


def _is_long(task: Task) -> bool:
    """Whether a task is long enough for the clock to pay."""
    model = task.derivatives.model
    of_input = model.point_size + task.run.graphs.forward_bytes_per_input / model.dtype.size
    return task.steps * len(task.everything) * of_input >= _WORTH_CLOCKING


def _are_coupled(task: Task) -> bool:
    batch_point = _first_batch(task)
    return len(batch_point.batch) > 1 and trials.samples_are_coupled(task.derivatives.loss, *batch_point)


def _sample_route(task: Task) -> Route:
    """Choose how a batch is contracted with the rows. Tokens leave no choice, and coupled samples less of it."""
    question, loss = task.question, task.derivatives.loss
    if question.keeps_tokens:
        return ROUTES["token_jvp"]
    at = _first_batch(task)
    are_coupled = len(at.batch) > 1 and trials.samples_are_coupled(loss, *at)
    if question.stop * len(at.batch) <= few_calls(task):
        return ROUTES["shares" if are_coupled else "calls"]
    if not are_coupled:
        hold = trials.sample_gradients_hold if question.keeps_parameters else trials.sample_products_hold
        if hold(loss, *at):
            return ROUTES["rules"]
    if question.keeps_parameters:
        return ROUTES["shares" if are_coupled else "loop"]
    rows = sum(len(piece.inputs) for piece in task.batches_of_pieces[0]) * task.outputs
    partition = contractions.within(question.partition, task.derivatives.model.theta_size)
    psi = tf.zeros((rows, task.derivatives.model.theta_size), task.derivatives.model.dtype)
    costs: dict[RouteName, float] = {"jvp": 3.0 + 2 * rows * max(1, len(question.layers))}
    if are_coupled:
        costs["shares"] = 3.0 * len(at.batch)
    else:  # in passes of one sample, where a JVP takes one of all
        costs["loop"] = 3 * _LOOP_PENALTY

    def contract(route: Route) -> Callable[[], np.ndarray]:
        return lambda: route.contract(loss, at, psi, partition)

    clocked = {name: contract(ROUTES[name]) for name in costs}
    return ROUTES[cheapest(costs, clocked, is_long=_is_long(task))]


def _first_batch(task: Task) -> TrainingPoint:
    """Return the largest batch of the first steps, and the point at which it trained.

    A batch of one sample does not show whether samples interact. If the first ones are such, later ones are looked at.
    """
    largest = task.replay.step(0)
    for number in range(1, task.question.stop):
        if number >= _LOOKED_AT and len(largest.transition.rows) > 1:
            break
        largest = max(largest, task.replay.step(number), key=lambda step: len(step.transition.rows))
    return TrainingPoint(largest.path.start, largest.path.constants, task.recorded.gradients.batch(largest))
