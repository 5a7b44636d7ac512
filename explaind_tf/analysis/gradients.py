"""Gradients at recorded weights, for methods of attribution and pruning other than the ledger."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np

from explaind_tf import measurements
from explaind_tf.attribution import Run
from explaind_tf.kernel import trials
from explaind_tf.kernel.derivatives.derivatives import Derivatives
from explaind_tf.kernel.functions import Batch, Block, StepPath
from explaind_tf.kernel.quadrature.nodes import Quadrature
from explaind_tf.measurements import Measurement
from explaind_tf.replay.binding import constants_of, flat_point, pure_model
from explaind_tf.runs.format import structure as struct

# Samples or inputs whose gradients are held at once.
_CHUNK = 64


class Gradients:
    """Gradients of a measurement, and of the losses of single training samples, at the weights of any step.

    Parameters
    ----------
    run : Run
        A run without sample weights, of a model whose samples do not interact: no BatchNorm, no dropout.
    of : callable
        Takes labels y, shape (inputs,), and returns the measurement: ``measurements.log_prob``, for example.

    Raises
    ------
    ValueError
        If the samples interact or have weights, so a sample by itself has no loss.
    """

    def __init__(self, run: Run, of: Callable[[Any], Measurement] = measurements.log_prob) -> None:
        self._run, self._of = run, of
        self._derivatives = Derivatives(pure_model(run, of(np.zeros(1, np.int32))))
        if run.step_store.layout.weights:
            raise ValueError(
                "This run has sample weights, which may change from step to step, so a sample by itself has no loss. Record "
                "a run without sample weights."
            )
        path, batch = self._at(0), self._batch(0, slice(0, _CHUNK))
        if len(batch) > 1 and trials.samples_are_coupled(
            self._derivatives.loss, path.start, path.constants, batch
        ):
            raise ValueError(
                "The losses of this run's samples depend on their batch, as with BatchNorm or dropout, so the loss of one "
                "by itself is not what was trained on. Record a run of a model whose samples do not interact."
            )

    def of_measurements(self, step: int, x: Any, y: np.ndarray) -> np.ndarray:
        """Return ∇f at the weights before a step, one row for each measurement, shape (inputs, D)."""
        block = Block(struct.as_batches(self._run.manifest.inputs, x, "x"), list(self._of(y).targets))
        path, size = self._at(step), self._derivatives.model.theta_size
        rows = []
        for first in range(0, len(block), _CHUNK):
            part = block.take(slice(first, first + _CHUNK))
            quadrature = Quadrature.same(len(part))
            found = self._derivatives.measurement.path_rows(
                path, quadrature, part, route="rules" if self._has_row_rules else "loop"
            ).numpy()
            rows.append(found.reshape(len(part), -1)[:, :size])
        return np.concatenate(rows)

    def of_losses(self, step: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield rows of the sample store, and ∇ℓ_k of each as a batch of its own, shape (rows, D)."""
        path = self._at(step)
        for rows in self._chunks():
            gradients = self._derivatives.loss.sample_gradients(
                path.start, path.constants, self._batch(step, rows), by_rule=self._has_sample_rules
            )
            yield rows, gradients.numpy()

    def losses(self, step: int) -> np.ndarray:
        """Return ℓ_k of each row of the sample store at the weights before a step, shape (rows,)."""
        path = self._at(step)
        found = [
            self._derivatives.loss.values(path.start, path.constants, self._batch(step, rows)).numpy()
            for rows in self._chunks()
        ]
        return np.concatenate(found)

    def _chunks(self) -> Iterator[slice]:
        count = len(self._run.samples)
        return (slice(first, min(first + _CHUNK, count)) for first in range(0, count, _CHUNK))

    def _at(self, step: int) -> StepPath:
        """Return a path of length zero at the weights before a step."""
        theta, state = self._run.step_store.theta(step), self._run.step_store.state(step)
        point = flat_point(self._run, theta, state)
        return StepPath(point, point, np.zeros_like(point), constants_of(self._run, state))

    def _batch(self, step: int, rows: slice) -> Batch:
        """Return samples with the scales that each would have in a batch of its own."""
        inputs, targets = self._run.samples.take_flat(np.arange(len(self._run.samples))[rows])
        path = self._at(step)
        first = Batch(inputs, targets, [], np.empty(0)).part(0, 1)
        scales = self._derivatives.loss.scales(
            path.start, path.constants, first.inputs, first.targets, first.weights
        )
        return Batch(inputs, targets, [], scales.numpy())

    @cached_property
    def _has_sample_rules(self) -> bool:
        path = self._at(0)
        batch = self._batch(0, slice(0, _CHUNK))
        return trials.sample_gradients_hold(self._derivatives.loss, path.start, path.constants, batch)

    @cached_property
    def _has_row_rules(self) -> bool:
        inputs, _ = self._run.samples.take_flat([0])
        return trials.row_rules_hold(
            self._derivatives.measurement,
            self._at(0),
            Block(inputs, list(self._of(np.zeros(1, np.int32)).targets)),
            at_once=None,  # these gradients take no JVP
        )
