"""The kernel machine of a run, by fixed nodes or by refinement, and the passes that it takes.

The package has no fixed nodes: it knows the error of each step, and places nodes where it is. So this module uses the
functions of the kernel.
"""

from dataclasses import dataclass

import numpy as np

import explaind_tf as xtf
from explaind_tf import measurements
from explaind_tf.kernel import path_integrals
from explaind_tf.kernel.derivatives.derivatives import Derivatives, Precisions
from explaind_tf.kernel.derivatives.measurement import MeasurementDerivatives
from explaind_tf.kernel.functions import Block
from explaind_tf.kernel.quadrature.nodes import Quadrature
from explaind_tf.replay.binding import pure_model
from explaind_tf.replay.replay import Replay

# Inputs that are measured at once.
_BLOCK = 64
_MOST_NODES = 2187


@dataclass(frozen=True)
class Passes:
    """Passes for one input and step, on average.

    Attributes
    ----------
    derivative_passes : float
        Quadrature nodes; at each one the outputs are differentiated.
    forward_passes : float
        Forward passes, which give the error of a piece of the path.
    """

    derivative_passes: float
    forward_passes: float


@dataclass(frozen=True)
class Machine:
    """A model's outputs before and after training, and those of its kernel machine, shape (inputs, outputs)."""

    initial: np.ndarray
    outputs: np.ndarray
    reconstruction: np.ndarray
    passes: Passes


class _Counted(MeasurementDerivatives):
    """Derivatives that count the pairs of a node and an input at which they are computed."""

    nodes = measured = 0

    def forget(self) -> None:
        """Count from zero."""
        self.nodes = self.measured = 0

    def path_jvp(self, path, table, directions, block):
        self.nodes += len(table.members)
        # Where a node stands for a piece of the step, both ends of the piece are measured, too.
        has_piece = np.repeat(table.pieces[:, 1] > table.pieces[:, 0], np.diff(table.splits))
        self.measured += 2 * int(has_piece.sum())
        return super().path_jvp(path, table, directions, block)

    def path_values(self, path, table, block):
        self.measured += len(table.members)
        return super().path_values(path, table, block)

    def values(self, point, constants, block):
        self.measured += len(block)
        return super().values(point, constants, block)


class Machines:
    """The kernel machines of a run for some inputs.

    Parameters
    ----------
    run : xtf.Run
        The run.
    x : np.ndarray
        Inputs.
    """

    def __init__(self, run: xtf.Run, x: np.ndarray) -> None:
        derivatives = Derivatives(pure_model(run, measurements.outputs()))
        self._measurement = _Counted(derivatives.model)
        self._replay = Replay(run, Precisions(derivatives, derivatives))
        self._blocks = [Block([x[first : first + _BLOCK]], []) for first in range(0, len(x), _BLOCK)]
        self._steps = len(run.steps)
        self._initial, self._final = self._outputs(0), self._outputs(self._steps)

    def by_fixed_nodes(self, nodes: int) -> Machine:
        """Return the machine whose nodes are the midpoints of ``nodes`` equal intervals of each step."""
        self._measurement.forget()
        quadratures = [_midpoints(len(block), nodes) for block in self._blocks]
        explained = np.zeros(self._initial.shape)
        for step in self._replay.path_steps(0, self._steps):
            # Only the sum of all causes is needed, so there is one direction.
            direction = sum(step.causes.values())[None]
            found = [
                path_integrals.integrate_directions(
                    step.path, direction, self._measurement, block, quadrature
                )[0]
                for block, quadrature in zip(self._blocks, quadratures, strict=True)
            ]
            explained += np.concatenate(found)
        return self._machine(explained)

    def by_refinement(self, tolerance: float) -> Machine:
        """Return the machine that ``run.attribute`` gives for a tolerance."""
        self._measurement.forget()
        explained = np.zeros(self._initial.shape)
        integrals = path_integrals.integrate_steps(
            self._replay.path_steps(0, self._steps),
            self._measurement,
            self._blocks,
            end=self._replay.end(self._steps),
            count=self._steps,
            tolerance=tolerance,
            max_nodes=_MOST_NODES,
        )
        for integral in integrals:
            first = integral.block * _BLOCK
            explained[first : first + _BLOCK] += sum(integral.causes.values())
        return self._machine(explained)

    def _outputs(self, step: int) -> np.ndarray:
        point = self._replay.end(step)
        found = [self._measurement.values(*point, block).numpy() for block in self._blocks]
        return np.concatenate(found).astype(np.float64)

    def _machine(self, explained: np.ndarray) -> Machine:
        pairs = len(explained) * self._steps
        passes = Passes(self._measurement.nodes / pairs, self._measurement.measured / pairs)
        return Machine(self._initial, self._final, self._initial + explained, passes)


def _midpoints(inputs: int, nodes: int) -> Quadrature:
    places = np.tile((np.arange(nodes) + 0.5) / nodes, inputs)
    return Quadrature.of_pairs(
        np.repeat(np.arange(inputs), nodes), places, np.full(len(places), 1 / nodes), inputs
    )
