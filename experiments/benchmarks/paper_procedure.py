"""The ExPLAIND paper's own procedure in TensorFlow, the baseline of the benchmarks.

It computes arXiv:2505.20076, Theorem 3.1, as the theorem is written. (The authors' reference code does so in PyTorch
with ``vmap``.) It loops over the steps, forwards, with a *momentum feature* for every training sample,

    μ_{k,s} = β₁ μ_{k,s−1} + (1 − β₁) ω ∇ℓ_k(θ_s)   (the gradient only for the samples of the batch),

samples × D numbers. At each step it computes the Jacobians of all outputs of all inputs at n fixed midpoints of the line
from θ_s to θ_{s+1}. Their mean Φ_s is multiplied by P_s and contracted with the features:

    data_k   += −⟨Φ_s P_s, μ_{k,s}⟩               weight decay += −η_s λ ⟨Φ_s, w⊙θ_s⟩.

It uses the package's recording and the law of the optimizer, but neither its quadrature nor its sweeps. Per-example
gradients and Jacobians are vectorised by ``tf.vectorized_map``, TensorFlow's counterpart of ``vmap``. Every function is
traced once.
"""

import functools
from typing import Any

import numpy as np
import tensorflow as tf

import explaind_tf as xtf
from explaind_tf import measurements
from explaind_tf.laws import Law, Moments, StepFactors, law_from_config
from explaind_tf.replay.binding import constants_of, pure_model
from explaind_tf.runs.steps import Transition

# Bytes of the per-example gradients that are held at once, beside the features.
_CHUNK_BYTES = 512 * 2**20


class PaperProcedure:
    """The procedure for all outputs of some inputs, one step after the other.

    Parameters
    ----------
    run : xtf.Run
        Trained by AdamW without clipping, accumulation, regularisers or floating-point state (BatchNorm), from
        momentum zero. This is the case that the paper treats.
    inputs : list of np.ndarray
        Flat, each (inputs, ...).
    nodes : int
        Midpoints in a step; the paper uses up to 100.

    Attributes
    ----------
    data : np.ndarray
        Influence of each row of the sample store so far, (inputs, outputs, rows), in the dtype of the weights.
    weight_decay : np.ndarray
        Shape (inputs, outputs).
    """

    def __init__(self, run: xtf.Run, inputs: list[np.ndarray], nodes: int = 100) -> None:
        self._run, self._nodes = run, nodes
        self._model = pure_model(run, measurements.outputs())
        _check(run, self._model)
        self._law, self._mask = _law(run), _decay_mask(run)
        # One input at a time: most of a Jacobian of several inputs is zero, but all of it would be computed.
        self._inputs = [[tf.constant(a[i : i + 1]) for a in inputs] for i in range(len(inputs[0]))]
        shape = (len(run.samples), self._model.theta_size)
        self._features = tf.Variable(tf.zeros(shape, self._model.dtype), trainable=False)
        self._loss_scales = tf.function(
            lambda point, *rest: self._model.loss_scales(self._model.unpack(point), *rest),
            reduce_retracing=True,
        )
        self._totals: list[np.ndarray] = []

    def step(self, number: int) -> None:
        """Account for one step; steps must be given in order."""
        transition = self._run.step_store.transition(number)
        start = transition.theta_start
        displacement = transition.theta_end - transition.theta_start
        constants = constants_of(self._run, transition.state_start)
        self._update_features(transition, start, constants)
        factors, decay = _factors(self._law, self._mask, transition)
        found = [
            self._contract(
                self._mean_jacobian(start, displacement, constants, x), factors.pull, decay, self._features
            )
            for x in self._inputs
        ]
        parts = [tf.stack(part).numpy() for part in zip(*found, strict=True)]
        if not self._totals:
            self._totals = parts
        else:
            for total, part in zip(self._totals, parts, strict=True):
                total += part

    @property
    def data(self) -> np.ndarray:
        """Influence of each sample through the steps so far."""
        return self._totals[0]

    @property
    def weight_decay(self) -> np.ndarray:
        """Change by weight decay in the steps so far."""
        return self._totals[1]

    def _update_features(
        self, transition: Transition, start: np.ndarray, constants: list[np.ndarray]
    ) -> None:
        inputs, targets = self._run.samples.take_flat(transition.rows)
        samples = (inputs, targets, transition.weights)
        scales = self._loss_scales(start, constants, *samples)
        # In place: the features take most of the memory.
        everyone = tf.range(self._features.shape[0])
        memory = tf.constant(self._law.memory, self._features.dtype)
        tf.raw_ops.ResourceScatterMul(resource=self._features.handle, indices=everyone, updates=memory)
        chunk = max(1, _CHUNK_BYTES // (self._model.theta_size * self._model.dtype.size))
        for first in range(0, len(transition.rows), chunk):
            part = slice(first, first + chunk)
            arrays = [[array[part] for array in arrays] for arrays in samples]
            self._add_gradients(start, constants, *arrays, scales, transition.rows[part])

    @functools.cached_property
    def _add_gradients(self) -> Any:
        model, gain = self._model, tf.constant(1 - self._law.memory, self._model.dtype)

        @tf.function(reduce_retracing=True)
        def add(point, constants, inputs, targets, weights, scales, rows):
            point = tf.convert_to_tensor(point)

            def one(example):
                x, y, w = ([part[None] for part in parts] for parts in example)
                loss = model.losses(model.unpack(point), constants, x, y, w, scales)
                return tf.convert_to_tensor(tf.gradients(loss, point)[0])

            gradients = tf.vectorized_map(one, (inputs, targets, weights))
            tf.raw_ops.ResourceScatterAdd(
                resource=self._features.handle, indices=rows, updates=gain * gradients
            )

        return add

    @functools.cached_property
    def _mean_jacobian(self) -> Any:
        model, nodes = self._model, self._nodes

        @tf.function(reduce_retracing=True)
        def mean(start, displacement, constants, inputs):
            """Return Φ_s of one input, (outputs, D)."""

            def jacobian(node):
                point = start + (tf.cast(node, model.dtype) + 0.5) / nodes * displacement
                outputs = model.measure(model.unpack(point), constants, inputs, [])[0]
                # As in GradientTape.jacobian. A tape does not see operations that were recorded as a graph.
                return tf.vectorized_map(
                    lambda cotangent: tf.convert_to_tensor(tf.gradients(outputs, point, cotangent)[0]),
                    tf.eye(outputs.shape[0], dtype=model.dtype),
                )

            first = jacobian(tf.constant(0))
            _, total = tf.while_loop(
                lambda node, _: node < nodes,
                lambda node, total: (node + 1, total + jacobian(node)),
                (tf.constant(1), first),
                parallel_iterations=1,
            )
            return total / nodes

        return mean

    @functools.cached_property
    def _contract(self) -> Any:
        @tf.function
        def contract(phi, pull, decay, features):
            return tf.matmul(phi * pull, features, transpose_b=True), tf.linalg.matvec(phi, decay)

        return contract


def completeness_error(run: xtf.Run, inputs: list[np.ndarray], nodes: int = 100) -> float:
    """Return the procedure's largest |f_N − f_0 − its ledger| over inputs and outputs, after the whole run.

    The entries of a step add up to Φ_s·(−P_s m_s − η_s λ w⊙θ_s), where m_s is the momentum of all samples together. So the
    error, rounding of the weights included, follows from one derivative at each of the same midpoints. The samples are not
    needed: this takes seconds instead of an hour.
    """
    model = pure_model(run, measurements.outputs())
    _check(run, model)
    law, mask = _law(run), _decay_mask(run)

    @tf.function(reduce_retracing=True)
    def explained(start, displacement, direction, constants):
        def at(node):
            point = start + (tf.cast(node, model.dtype) + 0.5) / nodes * displacement
            along = tf.zeros((), model.dtype)
            outputs = model.measure(model.unpack(point + along * direction), constants, inputs, [])
            dummy = tf.zeros_like(outputs)
            # g(v) = ∂⟨v, f⟩/∂along is linear in v, so its derivative by v is the derivative of f.
            (gradient,) = tf.gradients(outputs, along, grad_ys=dummy)
            return tf.cast(tf.gradients(gradient, dummy)[0], tf.float64)

        first = at(tf.constant(0))
        _, total = tf.while_loop(
            lambda node, _: node < nodes,
            lambda node, total: (node + 1, total + at(node)),
            (tf.constant(1), first),
        )
        return total / nodes

    @tf.function(reduce_retracing=True)
    def batch_gradient(point, constants, *samples):
        point = tf.convert_to_tensor(point)
        scales = model.loss_scales(model.unpack(point), constants, *samples)
        return tf.convert_to_tensor(
            tf.gradients(model.losses(model.unpack(point), constants, *samples, scales), point)[0]
        )

    measure = tf.function(lambda point, constants: model.measure(model.unpack(point), constants, inputs, []))
    momentum, values, total = tf.zeros_like(mask), [], 0.0
    for step in run.steps:
        transition = run.step_store.transition(int(step))
        start, end = transition.theta_start, transition.theta_end
        constants = constants_of(run, transition.state_start)
        samples = (*run.samples.take_flat(transition.rows), transition.weights)
        gradient = batch_gradient(start, constants, *samples)
        factors, decay = _factors(law, mask, transition)
        momentum = law.momentum(momentum, gradient, factors.gain)
        total = total + explained(start, end - start, factors.pull * momentum + decay, constants).numpy()
        if step in (run.steps[0], run.steps[-1]):
            values += [measure(point, constants).numpy().astype(np.float64) for point in (start, end)]
    return float(np.abs(values[-1] - values[0] - total).max())


def _law(run: xtf.Run) -> Law:
    optimizer = run.manifest.optimizer
    return law_from_config(optimizer.law, optimizer.constants)


def _decay_mask(run: xtf.Run) -> tf.Tensor:
    dtype = tf.dtypes.as_dtype(run.variables[0].dtype)
    return tf.concat([tf.fill([v.size], tf.cast(v.decay, dtype)) for v in run.variables], axis=0)


def _factors(law: Law, mask: tf.Tensor, transition: Transition) -> tuple[StepFactors, tf.Tensor]:
    """Return the coefficients of a step, whose pull is −P_s, and by how much weight decay moves each weight."""
    rate = transition.learning_rate
    after = Moments(transition.theta_stepped, transition.momentum, transition.second_moment)
    factors = law.factors(after, after, rate, transition.iteration)
    return factors, law.decay(tf.constant(transition.theta_start), mask, rate)


def _check(run: xtf.Run, model: Any) -> None:
    optimizer, start = run.manifest.optimizer, run.step_store.start
    is_plain = (
        optimizer.law == "AdamW"
        and optimizer.accumulates == 1
        and optimizer.clipvalue is None
        and model.regularizer is None
        and model.point_size == model.theta_size
        and (start.momentum is None or not start.momentum.any())
        and run.step_store.transition(0).clip_factors is None
    )
    if not is_plain:
        raise ValueError("The paper's procedure is for AdamW from the start, and nothing besides.")
