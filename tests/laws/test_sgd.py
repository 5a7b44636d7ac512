"""The law of SGD against the weights of the Keras optimizer."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from explaind_tf.laws import Moments, SGDLaw
from explaind_tf.optimizers import PathSGD

# Weights of order 1 are rounded to 1e-16, and move by 1e-2 or more per step in all cases below.
RELATIVE = 1e-12

SGD_CASES = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "nesterov without momentum": {"nesterov": True},
    "decay": {"momentum": 0.5, "weight_decay": 0.2},
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("case", SGD_CASES)
def test_twenty_steps_of_sgd_on_their_own(case: str):
    """Only the law updates θ and the velocity; the learning rate changes from step to step."""
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 30)
    optimizer = keras.optimizers.SGD(schedule, **SGD_CASES[case])
    law = PathSGD(schedule, **SGD_CASES[case]).law()
    rng = np.random.default_rng(5)
    variable = keras.Variable(rng.normal(size=8), name="kernel")
    theta, velocity = variable.numpy(), np.zeros(8)
    for step in range(20):
        gradient = rng.normal(size=8)
        rate = float(schedule(step))
        optimizer.apply([tf.constant(gradient)], [variable])
        end = Moments(theta, None, None)
        factors = law.factors(end, end, rate, step)
        velocity = law.momentum(tf.constant(velocity), tf.constant(gradient), factors.gain).numpy()
        decay = law.decay(tf.constant(theta), tf.ones(8, tf.float64), rate).numpy()
        theta = theta + decay + factors.pull.numpy() * velocity + factors.direct * gradient
        np.testing.assert_allclose(theta, variable.numpy(), rtol=0, atol=RELATIVE)


def test_nesterov_is_a_bool_and_a_number_in_the_manifest():
    law = PathSGD(0.1, momentum=0.9, nesterov=True).law()
    assert law == SGDLaw(0.9, True, 0.0) and law.nesterov is True
    assert list(law.to_config().items()) == [
        ("momentum_share", 0.9),
        ("nesterov", 1.0),
        ("weight_decay", 0.0),
    ]
    assert all(type(value) is float for value in law.to_config().values())
    assert SGDLaw.from_config(law.to_config()).nesterov is True


def test_nesterov_is_yes_or_no():
    constants = {"momentum_share": 0.9, "nesterov": 0.5, "weight_decay": 0.0}
    with pytest.raises(ValueError, match=r"nesterov must be 0 \(false\) or 1 \(true\); found 0\.5"):
        SGDLaw.from_config(constants)
