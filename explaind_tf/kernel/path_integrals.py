"""Integrals along a path: how far each output moved in each step, by cause, and the nodes that were used.

Steps are integrated forwards, one at a time, for all inputs. This does not depend on the axes that are asked for, so
totals agree.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import tensorflow as tf

from explaind_tf.kernel.derivatives.measurement import MeasurementDerivatives
from explaind_tf.kernel.functions import Block, StepPath
from explaind_tf.kernel.quadrature.cells import AtNodes, Integrand
from explaind_tf.kernel.quadrature.nodes import Quadrature, by_node
from explaind_tf.kernel.quadrature.refinement import integrate

# Rounding error of a difference of two values of f, in units in the last place.
_ROUNDED = 2
# Share of the tolerance that the quadrature may use; the rest is for rounding.
_QUADRATURE_SHARE = 0.8
# Every so many steps, inputs whose kinks were averaged try one plain node again.
_TRIED_EVERY = 10
# Derivatives at several nodes are asked for together up to so many numbers.
_FEW_VALUES = 2**16


@dataclass(frozen=True)
class PathStep:
    """One step of the path with its displacement split into causes.

    Attributes
    ----------
    number : int
        Step number.
    path : StepPath
        The path of the step.
    causes : dict
        Displacement by cause, each of shape (Z,), or (G, Z) for a cause that is split over G groups. Causes that are
        zero are left out. Up to rounding they add up to the displacement of the path.
    unexplained : np.ndarray or None
        That rounding, shape (Z,), if it is large enough to look like a quadrature error.
    """

    number: int
    path: StepPath
    causes: dict[str, np.ndarray]
    unexplained: np.ndarray | None = None

    @property
    def rest(self) -> np.ndarray:
        """The part of the displacement that no cause explains, shape (Z,)."""
        return self.path.displacement - sum(
            vector.sum(axis=0) if vector.ndim == 2 else vector for vector in self.causes.values()
        )

    @property
    def directions(self) -> np.ndarray:
        """All directions to integrate along, the causes first, shape (K, Z)."""
        rest = [] if self.unexplained is None else [self.unexplained]
        return np.concatenate([np.atleast_2d(vector) for vector in (*self.causes.values(), *rest)])

    def by_cause(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Return values of all directions (K, ...) by cause: (...), or (G, ...) for a cause that is split."""
        found, start = {}, 0
        for name, vectors in self.causes.items():
            count = len(np.atleast_2d(vectors))
            found[name] = values[start : start + count] if vectors.ndim == 2 else values[start]
            start += count
        return found


@dataclass(frozen=True)
class StepIntegral:
    """How one step moved one block of inputs. Arrays are of shape (batch, O), causes of groups (G, batch, O)."""

    step: PathStep
    block: int
    quadrature: Quadrature
    start_value: np.ndarray
    end_value: np.ndarray
    causes: dict[str, np.ndarray]
    jumps: np.ndarray

    @property
    def residual(self) -> np.ndarray:
        """Change that neither a cause nor a jump explains: quadrature error and rounding."""
        causes = [c.sum(axis=0) if c.ndim > self.end_value.ndim else c for c in self.causes.values()]
        return self.end_value - self.start_value - sum(causes) - self.jumps


@dataclass
class _BlockState:
    """The state of a block of inputs between two steps.

    ``averaged`` marks the inputs whose kinks were averaged in the last step. They probably need it again.
    """

    initial: np.ndarray
    value: np.ndarray
    movement: np.ndarray
    error: np.ndarray
    averaged: np.ndarray


def integrate_steps(
    steps: Iterable[PathStep],
    measurement: MeasurementDerivatives,
    blocks: Sequence[Block],
    *,
    end: tuple[np.ndarray, list[np.ndarray]],
    count: int,
    tolerance: float,
    max_nodes: int,
) -> Iterator[StepIntegral]:
    """Integrate every step for every block, refining until the *sum* of errors meets the tolerance.

    Errors are known with their sign, so their running sum is controlled. Let R be the error so far, n the number of
    steps left, and T the tolerance times the movement. A step may then add (T − |R|) / (1 + ½√(n − 1)). Errors that
    cancel leave room for later steps, and the sum stays below T.

    Parameters
    ----------
    steps : iterable of PathStep
        In order; each starts where the one before ended.
    measurement : MeasurementDerivatives
        Derivatives of the measurement.
    blocks : sequence of Block
        The inputs.
    end : tuple
        Point and constants at the end of the path, which the movement needs.
    count : int
        Number of steps.
    tolerance : float
        Error allowed, relative to the movement of each input (largest distance of any output from its start).
    max_nodes : int
        Largest number of nodes of one input in one step.

    Yields
    ------
    StepIntegral
        For each step, for each block.
    """
    states: list[_BlockState] = []
    for position, step in enumerate(steps):
        directions = tf.constant(step.directions)
        for index, block in enumerate(blocks):
            if position == 0:
                states.append(_begin(step.path, measurement, block, end))
            state = states[index]
            end_value = _measure(measurement, step.path.end, step.path.constants, block)
            excursion = np.max(np.abs(end_value - state.initial), axis=1)
            state.movement = np.maximum(state.movement, excursion)
            budget = _budget(state, tolerance, remaining=count - position, count=count)
            unit = _unit_in_last_place(measurement.model.dtype, state.value, end_value)
            found = integrate(
                Integrand(
                    _at_nodes(partial(measurement.path_jvp, directions=directions), step.path, block),
                    _at_nodes(measurement.path_values, step.path, block),
                    np.maximum(budget, unit),
                ),
                state.value,
                end_value,
                rounding=_ROUNDED * unit,
                max_nodes=max_nodes,
                averaged=state.averaged if measurement.has_kinks else None,
                may_jump=measurement.may_jump,
            )
            change, causes = end_value - state.value, step.by_cause(found.integrals)
            integral = StepIntegral(
                step, index, found.quadrature, state.value, end_value, causes, found.jumps
            )
            state.value = end_value
            # Without the rounding of weights, which is known: so all questions use the same nodes, however they split.
            state.error = state.error + (change - found.integrals.sum(axis=0) - found.jumps)
            state.averaged = found.quadrature.is_averaged & ((position + 1) % _TRIED_EVERY != 0)
            yield integral


def _begin(
    path: StepPath,
    measurement: MeasurementDerivatives,
    block: Block,
    end: tuple[np.ndarray, list[np.ndarray]],
) -> _BlockState:
    initial = _measure(measurement, path.start, path.constants, block)
    final = _measure(measurement, *end, block)
    movement, nobody = np.max(np.abs(final - initial), axis=1), np.zeros(len(block), bool)
    return _BlockState(initial, initial, movement, np.zeros_like(initial), nobody)


def _measure(
    measurement: MeasurementDerivatives, point: np.ndarray, constants: list, block: Block
) -> np.ndarray:
    return measurement.values(point, constants, block).numpy().astype(np.float64)


def _budget(state: _BlockState, tolerance: float, *, remaining: int, count: int) -> np.ndarray:
    allowed = _QUADRATURE_SHARE * tolerance * state.movement[:, None]
    share = (allowed - np.abs(state.error)) / (1 + np.sqrt(remaining - 1) / 2)
    # If a step that could not be refined used up the tolerance, later steps still get a small share of it.
    return np.maximum(share, 0.1 * allowed / np.sqrt(count))


def _unit_in_last_place(dtype: tf.DType, *values: np.ndarray) -> float:
    """Return the rounding error of f, below which no completeness error can be known."""
    largest = max(float(np.max(np.abs(value))) for value in values)
    return float(np.finfo(dtype.as_numpy_dtype).eps) * max(largest, float(np.finfo(np.float32).tiny))


def _at_nodes(function: Callable[..., tf.Tensor], path: StepPath, block: Block) -> AtNodes:
    """Return a method of the derivatives as a function of pairs of a node and an input, in any order."""

    def at_nodes(nodes: np.ndarray, owners: np.ndarray, pieces: np.ndarray) -> np.ndarray:
        table = by_node(nodes, owners, pieces)
        found = function(path=path, table=table, block=block).numpy()
        values = np.empty(found.shape)
        values[table.order] = found
        return values

    return at_nodes


def integrate_directions(
    path: StepPath,
    directions: np.ndarray,
    measurement: MeasurementDerivatives,
    block: Block,
    quadrature: Quadrature,
) -> np.ndarray:
    """Return Φ_s · d for directions (K, Z) with the quadrature of a block, shape (K, batch, O), float64."""
    table, weights = quadrature.by_node()
    total: np.ndarray | float = 0.0
    # With no more pairs at once than inputs, their values take no more memory than the result, however many directions.
    # Small values are not worth a call for each node.
    most = max(len(block), _FEW_VALUES // (len(directions) * measurement.width))
    for pairs, part in table.parts(most):
        values = measurement.path_jvp(path, part, directions, block).numpy()
        added = np.zeros((len(block), *values.shape[1:]))
        np.add.at(added, part.members, values * weights[pairs, None, None])
        total = total + added
    return np.moveaxis(np.asarray(total), 1, 0)
