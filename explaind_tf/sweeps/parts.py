"""Routes that split causes over layers or weights. All compute the same values; each can estimate its cost."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import tensorflow as tf

from explaind_tf.kernel.contractions import sum_by_part
from explaind_tf.kernel.derivatives.measurement import RowsRoute
from explaind_tf.kernel.path_integrals import PathStep, StepIntegral, integrate_directions
from explaind_tf.sweeps.clock import seconds
from explaind_tf.sweeps.rows import parts_of_rows, path_rows
from explaind_tf.sweeps.sweep import Pass, TriedStep
from explaind_tf.sweeps.task import ROWS_HELD, Piece, Task


class PartsRoute(Protocol):
    """How causes are split over layers or weights.

    Attributes
    ----------
    name : str
        Its name in the ledger's ``attrs["method"]``.
    """

    name: ClassVar[str]

    def values(
        self, task: Task, step: PathStep, integral: StepIntegral
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield slices of inputs, and the change of each by direction and part, shape (K, batch, O, parts)."""
        ...

    def price(self, task: Task, tried: TriedStep) -> Pass:
        """Return the pass of one step with its measured time."""
        ...

    def row_bytes(self, task: Task) -> int:
        """Return the bytes of the rows held."""
        ...


@dataclass(frozen=True)
class PartsByJvp:
    """A JVP for each direction and part."""

    name: ClassVar[str] = "jvp"

    def values(
        self, task: Task, step: PathStep, integral: StepIntegral
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield slices of inputs, and the change of each by direction and part, shape (K, batch, O, parts)."""
        found = []
        for direction in step.directions:
            masked = np.zeros((len(task.question.partition), len(direction)), direction.dtype)
            for part, slices in zip(masked, task.question.partition, strict=True):
                for start, stop in slices:
                    part[start:stop] = direction[start:stop]
            block = task.blocks[integral.block]
            values = integrate_directions(
                step.path, masked, task.derivatives.measurement, block, integral.quadrature
            )
            found.append(np.moveaxis(values, 0, -1))
        yield task.slices[integral.block], np.stack(found)

    def price(self, task: Task, tried: TriedStep) -> Pass:
        """Return the pass of one step with its measured time."""
        repeated = np.repeat(tried.step.directions, len(task.question.partition), axis=0)
        at = (
            tried.step.path,
            repeated,
            task.derivatives.measurement,
            task.blocks[0],
            tried.integral.quadrature,
        )
        spent = seconds(lambda: integrate_directions(*at))
        return Pass("JVP of each layer, per node", tried.nodes, tried.share * spent)

    def row_bytes(self, task: Task) -> int:
        """Return 0: there are no rows."""
        return 0


@dataclass(frozen=True)
class PartsByProducts:
    """One backward pass per node for all measurements; products with the directions are taken variable by variable."""

    name: ClassVar[str] = "products"

    def values(
        self, task: Task, step: PathStep, integral: StepIntegral
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield slices of inputs, and the change of each by direction and part, shape (K, batch, O, parts)."""
        for piece in task.pieces(integral.block):
            by_variable = self._products(task, step, piece, integral)
            by_part = sum_by_part(by_variable.numpy(), task.derivatives.model, task.question.partition)
            yield piece.rows, np.moveaxis(by_part, 2, 0)

    def price(self, task: Task, tried: TriedStep) -> Pass:
        """Return the pass of one step with its measured time."""
        piece = next(task.pieces(0))
        spent = seconds(lambda: self._products(task, tried.step, piece, tried.integral))
        return Pass(
            "products of a backward pass, per node",
            tried.nodes,
            spent * len(task.everything) / len(piece.inputs),
        )

    def row_bytes(self, task: Task) -> int:
        """Return 0: rows are never held."""
        return 0

    @staticmethod
    def _products(task: Task, step: PathStep, piece: Piece, integral: StepIntegral) -> tf.Tensor:
        """Return Φ · d variable by variable, shape (inputs, O, K, V)."""
        return task.derivatives.measurement.path_products(
            step.path,
            piece.quadrature_of(integral.quadrature),
            step.directions,
            piece.inputs,
            stacked=task.stacked_nodes(piece),
        )


@dataclass(frozen=True)
class PartsByRows:
    """Rows Φ, and their products with the directions.

    Attributes
    ----------
    route : RowsRoute
        How the rows are computed.
    """

    route: RowsRoute

    name: ClassVar[str] = "rows"

    def values(
        self, task: Task, step: PathStep, integral: StepIntegral
    ) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield slices of inputs, and the change of each by direction and part, shape (K, batch, O, parts)."""
        for piece in task.pieces(integral.block):
            phi = path_rows(task, step.path, piece, integral.quadrature, route=self.route)
            yield piece.rows, parts_of_rows(task, phi, step.directions, len(piece.inputs))

    def price(self, task: Task, tried: TriedStep) -> Pass:
        """Return the pass of one step with its measured time."""
        piece, quadrature = next(task.pieces(0)), tried.integral.quadrature
        spent = seconds(lambda: path_rows(task, tried.step.path, piece, quadrature, route=self.route))
        return Pass(
            "rows for the parts, per node", tried.nodes, spent * len(task.everything) / len(piece.inputs)
        )

    def row_bytes(self, task: Task) -> int:
        """Return the bytes of the rows of one piece."""
        return ROWS_HELD * len(next(task.pieces(0)).inputs) * task.outputs * task.point_bytes
