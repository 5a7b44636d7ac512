"""The law of AdamW against the weights of the Keras optimizer."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from explaind_tf.laws import AdamWLaw, Moments
from explaind_tf.optimizers import PathAdamW

# Weights of order 1 are rounded to 1e-16, and move by 1e-2 or more per step in all cases below.
RELATIVE = 1e-12

CASES = {
    "paper": {"learning_rate": 0.05, "weight_decay": 4.0, "beta_2": 0.98},
    "large epsilon": {"learning_rate": 0.1, "weight_decay": 0.1, "epsilon": 1e-2},
    "no momentum": {"learning_rate": 0.1, "weight_decay": 0.0, "beta_1": 0.0},
    # Schedules round to float32 even in float64 mode: the law must use the rate that Keras used.
    "schedule": {
        "learning_rate": keras.optimizers.schedules.ExponentialDecay(0.1, 3, 0.7),
        "weight_decay": 0.5,
    },
}


def law_of(optimizer: keras.optimizers.AdamW) -> AdamWLaw:
    names = ("beta_1", "beta_2", "epsilon", "weight_decay")
    return AdamWLaw(**{name: getattr(optimizer, name) for name in names})


def keras_steps(
    optimizer: keras.optimizers.AdamW, count: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, float, np.ndarray]]:
    """Yield θ before, g, m, v, η and θ after: flat, a decayed kernel and an excluded bias."""
    rng = np.random.default_rng(5)
    kernel = keras.Variable(rng.normal(size=(3, 2)), name="kernel")
    bias = keras.Variable(rng.normal(size=2), name="bias")
    assert kernel.dtype == "float64"
    optimizer.exclude_from_weight_decay(var_list=[bias.value])
    optimizer.build([kernel, bias])
    for _ in range(count):
        # Gradients differ a lot in size: if g² is small, an ε in the wrong place shows.
        gradients = [
            tf.constant(rng.normal(size=v.shape) * 10 ** rng.uniform(-6, 1, v.shape)) for v in (kernel, bias)
        ]
        before, rate = flat([kernel, bias]), float(optimizer.learning_rate)
        optimizer.apply(gradients, [kernel, bias])
        yield (
            before,
            flat(gradients),
            flat(optimizer._momentums),
            flat(optimizer._velocities),
            rate,
            flat([kernel, bias]),
        )


def flat(tensors: list[Any]) -> np.ndarray:
    return np.concatenate([tensor.numpy().reshape(-1) for tensor in tensors])


MASK = np.array([1.0] * 6 + [0.0] * 2)


def displacement(
    law: AdamWLaw, theta: np.ndarray, m: np.ndarray, v: np.ndarray, rate: float, step: int
) -> np.ndarray:
    decay = law.decay(tf.constant(theta), tf.constant(MASK), rate)
    end = Moments(theta, m, v)
    return decay.numpy() + law.factors(end, end, rate, step).pull.numpy() * m


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("case", CASES)
class TestAgainstKeras:
    def test_one_step(self, case: str):
        optimizer = keras.optimizers.AdamW(**CASES[case])
        ((theta, gradient, m, v, rate, after),) = keras_steps(optimizer, 1)
        law = law_of(optimizer)
        np.testing.assert_allclose(
            law.momentum(tf.zeros(8, tf.float64), tf.constant(gradient), 1 - law.beta_1), m, rtol=RELATIVE
        )
        expected = after - theta
        found = displacement(law, theta, m, v, rate, 0)
        # after − θ has the rounding error of the weights, so the bound is relative to the largest step.
        np.testing.assert_allclose(found, expected, rtol=0, atol=RELATIVE * np.abs(expected).max())

    def test_twenty_steps_on_their_own(self, case: str):
        """Only the law updates θ and m, so errors of single steps would add up."""
        optimizer = keras.optimizers.AdamW(**CASES[case])
        law = law_of(optimizer)
        theta = momentum = None
        for step, (before, gradient, m, v, rate, after) in enumerate(keras_steps(optimizer, 20)):
            theta = before if theta is None else theta
            momentum = np.zeros_like(before) if momentum is None else momentum
            momentum = law.momentum(tf.constant(momentum), tf.constant(gradient), 1 - law.beta_1).numpy()
            theta = theta + displacement(law, theta, momentum, v, rate, step)
            np.testing.assert_allclose(momentum, m, rtol=0, atol=RELATIVE * np.abs(m).max())
            np.testing.assert_allclose(theta, after, rtol=0, atol=RELATIVE * np.abs(after).max())


def test_law_of_a_path_optimizer_has_its_constants():
    optimizer = PathAdamW(0.1, weight_decay=0.5, beta_1=0.7, beta_2=0.95, epsilon=1e-4)
    expected = {"beta_1": 0.7, "beta_2": 0.95, "epsilon": 1e-4, "weight_decay": 0.5}
    assert optimizer.law().to_config() == expected
    assert AdamWLaw(**expected) == optimizer.law()
