"""Compiled derivatives of a model's training losses at a point.

Rules (:mod:`explaind_tf.kernel.derivatives.example_gradients`) give the gradients of all single samples at once. If the
graph has operations without a rule, a ``map_fn`` differentiates one sample at a time, with the same result.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from explaind_tf.errors import RunFormatError
from explaind_tf.kernel.derivatives.arguments import Trained
from explaind_tf.kernel.derivatives.compiled import (
    PARALLEL_DIRECTIONS,
    PARALLEL_EXAMPLES,
    Compiled,
    jvp_many,
    vjp,
)
from explaind_tf.kernel.derivatives.example_gradients import ExampleGradients
from explaind_tf.kernel.functions import Batch, Losses, PureModel
from explaind_tf.kernel.operations.reverse_mode import gradients
from explaind_tf.kernel.points import Point


class LossDerivatives:
    """The compiled functions of the losses ℓ_k, scaled and weighted. Each is traced once, whatever the batch size.

    Parameters
    ----------
    model : PureModel
        The functions to differentiate.
    """

    def __init__(self, model: PureModel) -> None:
        self.model = model
        point = tf.TensorSpec((model.point_size,), model.dtype)
        directions = tf.TensorSpec((None, model.point_size), model.dtype)
        rows = tf.TensorSpec((None, model.theta_size), model.dtype)
        shares = tf.TensorSpec((None,), model.dtype)
        trained = Trained.spec(model)
        constants, x, *_ = trained

        self._values = Compiled(self._at(model.losses), [point, trained])
        self._state = Compiled(self._build_state, [point, trained])
        self._scales = Compiled(
            lambda z, *samples: model.loss_scales(model.unpack(z), *samples), [point, *trained[:-1]]
        )
        self._gradient = Compiled(self._build_gradient, [point, shares, trained])
        self._jvp = Compiled(self._jvp_of(model.losses), [point, directions, trained])
        if model.token_losses is not None:
            self._token_values = Compiled(self._at(model.token_losses), [point, trained])
            self._token_jvp = Compiled(self._jvp_of(model.token_losses), [point, directions, trained])
        self._gradients_one_by_one = Compiled(self._build_gradients_one_by_one, [point, trained])
        self._gradients_by_rule = Compiled(self._build_gradients_by_rule, [point, trained])
        self._contract = Compiled(self._build_contraction, [point, rows, trained])
        self._coupled_gradients = Compiled(self._build_coupled_gradients, [point, trained])
        self._regularizer_gradient = Compiled(self._build_regularizer_gradient, [point, constants, x])

    @cached_property
    def sparse(self) -> tuple[bool, ...]:
        """Whether the gradient by each weight is a sum over rows that a batch looks up, as that of an embedding."""
        found: list[bool] = []

        def build(point: tf.Tensor, trained: Trained) -> tf.Tensor:
            variables = self.model.unpack(point)
            total = tf.reduce_sum(self.model.losses(variables, *trained))
            if self.model.regularizer is not None:
                total += self.model.regularizer(variables, trained.constants, trained.inputs)
            by_weights = gradients(total, variables[: len(self.model.trained)])
            found.extend(isinstance(gradient, tf.IndexedSlices) for gradient in by_weights)
            return point

        point = tf.TensorSpec((self.model.point_size,), self.model.dtype)
        _ = Compiled(build, [point, Trained.spec(self.model)]).graph
        return tuple(found)

    def values(self, point: Any, constants: list[Any], batch: Batch) -> tf.Tensor:
        """Return what each sample adds to the loss of its batch, shape (batch,).

        Raises
        ------
        RunFormatError
            If the graph of the losses returns another number of them.
        """
        found: tf.Tensor = self._values(point, Trained.of(constants, batch))
        if found.shape != (len(batch),):
            raise RunFormatError(
                f"The graph of the losses returns values of shape {found.shape} for a batch of {len(batch)} samples, and "
                f"one for each is needed. A PathLogger writes no such graph: restore the graphs from a copy."
            )
        return found

    def state(self, point: Any, constants: list[Any], batch: Batch) -> list[tf.Tensor]:
        """Return the state that training on a batch leaves, a tensor for each variable that is not trained."""
        return self._state(point, Trained.of(constants, batch))

    def scales(
        self, point: Any, constants: list[Any], inputs: list[Any], targets: list[Any], weights: list[Any]
    ) -> tf.Tensor:
        """Return the scales of a whole batch's losses, shape (L,)."""
        return self._scales(point, constants, inputs, targets, weights)

    def gradient(
        self, point: Any, constants: list[Any], batch: Batch, shares: np.ndarray | None = None
    ) -> tf.Tensor:
        """Return the gradient of the batch loss by θ, without regularisers, shape (D,).

        ``shares``, of shape (batch,), gives the share of each sample's loss to differentiate; by default all of it.
        """
        if shares is None:
            shares = np.ones(len(batch))
        shares = shares.astype(self.model.dtype.as_numpy_dtype)
        return self._gradient(point, shares, Trained.of(constants, batch))

    def jvp(self, point: Any, constants: list[Any], batch: Batch, directions: Any) -> tf.Tensor:
        """Return ∂ℓ_k/∂z · d for directions (K, Z), shape (K, batch).

        It differentiates the whole batch, so it is exact for coupled samples too (BatchNorm in training mode).
        """
        return self._jvp(point, directions, Trained.of(constants, batch))

    def token_values(self, point: Any, constants: list[Any], batch: Batch) -> tf.Tensor:
        """Return what each position of each sample adds to the loss of its batch, shape (batch, positions)."""
        return self._token_values(point, Trained.of(constants, batch))

    def token_jvp(self, point: Any, constants: list[Any], batch: Batch, directions: Any) -> tf.Tensor:
        """Return the same as :meth:`jvp` position by position, shape (K, batch, positions)."""
        return self._token_jvp(point, directions, Trained.of(constants, batch))

    def sample_gradients(self, point: Any, constants: list[Any], batch: Batch, *, by_rule: bool) -> tf.Tensor:
        """Return ∂ℓ_k/∂θ for each sample on its own, shape (batch, D).

        Only for samples that do not interact. ``by_rule`` differentiates all of them at once, and otherwise one by one.

        Raises
        ------
        NotCoveredError
            If the model has no rules.
        """
        compiled = self._gradients_by_rule if by_rule else self._gradients_one_by_one
        return compiled(point, Trained.of(constants, batch))

    def contract(self, point: Any, constants: list[Any], batch: Batch, rows: Any) -> tf.Tensor:
        """Return ⟨Ψ, ∂ℓ_k/∂θ⟩ for rows (F, D) and each sample on its own, variable by variable, shape (F, batch, V).

        It uses rules and, where that is cheaper, never forms the gradients. Only for samples that do not interact.

        Raises
        ------
        NotCoveredError
            If the model has no rules.
        """
        return self._contract(point, rows, Trained.of(constants, batch))

    def coupled_gradients(self, point: Any, constants: list[Any], batch: Batch) -> tf.Tensor:
        """Return ∂ℓ_k/∂θ for each sample within its batch, shape (batch, D).

        Each sample takes one backward pass of the whole batch. No other method gives the gradients of coupled samples.
        """
        return self._coupled_gradients(point, Trained.of(constants, batch))

    def regularizer_gradient(self, point: Any, constants: list[Any], inputs: list[Any]) -> tf.Tensor:
        """Return ∇R by θ for a batch of inputs, shape (D,)."""
        return self._regularizer_gradient(point, constants, inputs)

    # Graphs.

    def _at(self, losses: Losses) -> Callable[[tf.Tensor, Trained], tf.Tensor]:
        """Return losses as a function of the point."""
        return lambda point, trained: losses(self.model.unpack(point), *trained)

    def _build_state(self, point: tf.Tensor, trained: Trained) -> list[tf.Tensor]:
        assert self.model.losses_and_state is not None  # a recorded run of the level "sample" has it
        return self.model.losses_and_state(self.model.unpack(point), *trained)[1]

    def _jvp_of(self, losses: Losses) -> Any:
        """Return ``(z, directions, trained) -> (K, ...)``: the derivatives of losses in K directions."""

        def derivatives(vector: tf.Tensor, directions: tf.Tensor, trained: Trained) -> tf.Tensor:
            point = self.model.at(vector)
            return jvp_many(losses(point.variables, *trained), point, directions)

        return derivatives

    def _by_weights(self, loss: tf.Tensor, point: Point, cotangent: tf.Tensor | None) -> tf.Tensor:
        """Return the VJP by θ, the first variables of the point."""
        return vjp(loss, point.first(len(self.model.trained)), cotangent)

    def _build_gradient(self, vector: tf.Tensor, shares: tf.Tensor, trained: Trained) -> tf.Tensor:
        point = self.model.at(vector)
        # Scaled before the backward pass, as Keras does: the same rounding, often the same bits.
        return self._by_weights(self.model.losses(point.variables, *trained), point, shares)

    def _build_gradients_one_by_one(self, vector: tf.Tensor, trained: Trained) -> tf.Tensor:
        def one_sample(example: tuple[list[tf.Tensor], list[tf.Tensor], list[tf.Tensor]]) -> tf.Tensor:
            inputs, targets, weights = ([part[None] for part in parts] for parts in example)
            own = trained._replace(inputs=inputs, targets=targets, weights=weights)
            point = self.model.at(vector)
            return self._by_weights(self.model.losses(point.variables, *own), point, None)

        return tf.map_fn(
            one_sample,
            (trained.inputs, trained.targets, trained.weights),
            fn_output_signature=self.model.dtype,
            parallel_iterations=PARALLEL_EXAMPLES,
        )

    def _examples(self, point: tf.Tensor, trained: Trained) -> ExampleGradients:
        variables = self.model.unpack(point)
        losses = self.model.losses(variables, *trained)
        weights = variables[: len(self.model.trained)]
        samples = [*trained.inputs, *trained.targets, *trained.weights]
        return ExampleGradients(losses, None, weights, samples, tf.shape(losses)[0])

    def _build_gradients_by_rule(self, point: tf.Tensor, trained: Trained) -> tf.Tensor:
        return self._examples(point, trained).gradients()

    def _build_contraction(self, point: tf.Tensor, rows: tf.Tensor, trained: Trained) -> tf.Tensor:
        specs = self.model.trained
        pieces = tf.split(rows, self.model.sizes[: len(specs)], axis=1)
        shaped = [tf.reshape(p, (-1, *spec.shape)) for p, spec in zip(pieces, specs, strict=True)]
        return self._examples(point, trained).contract(shaped)

    def _build_coupled_gradients(self, vector: tf.Tensor, trained: Trained) -> tf.Tensor:
        point = self.model.at(vector)
        losses = self.model.losses(point.variables, *trained)
        return tf.map_fn(
            lambda cotangent: self._by_weights(losses, point, cotangent),
            tf.eye(tf.shape(losses)[0], dtype=losses.dtype),
            parallel_iterations=PARALLEL_DIRECTIONS,
        )

    def _build_regularizer_gradient(
        self, vector: tf.Tensor, constants: list[tf.Tensor], x: list[tf.Tensor]
    ) -> tf.Tensor:
        if self.model.regularizer is None:
            return tf.zeros_like(vector[: self.model.theta_size])
        point = self.model.at(vector)
        return self._by_weights(self.model.regularizer(point.variables, constants, x), point, None)
