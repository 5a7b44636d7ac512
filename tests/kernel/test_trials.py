"""Trials refuse rules that do not fit how a model arranges its examples; the loop is right for these models too."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from explaind_tf.kernel import trials
from explaind_tf.kernel.derivatives.derivatives import Derivatives
from explaind_tf.kernel.functions import Batch, Block, PureModel, StepPath
from explaind_tf.kernel.quadrature.nodes import Quadrature
from tests.helpers import double_precision

pytestmark = pytest.mark.slow

T, C, D = 3, 4, 2
SHAPES = [(C, C), (C,), (C, D)]


def plain(v, x):
    return tf.tanh(x @ v[0] + v[1])


def time_major(v, x):
    states = tf.tanh(tf.transpose(x, (1, 0, 2)) @ v[0] + v[1])
    return tf.transpose(states, (1, 0, 2))


def time_major_rows(v, x):
    rows = tf.reshape(tf.transpose(x, (1, 0, 2)), (-1, C)) @ v[0] + v[1]
    return tf.transpose(tf.reshape(tf.tanh(rows), (T, -1, C)), (1, 0, 2))


def features_first(v, x):
    states = tf.transpose(x @ v[0], (2, 0, 1)) + v[1][:, None, None]
    return tf.transpose(tf.tanh(states), (1, 2, 0))


def two_arrangements(v, x):
    # One product in the right arrangement does not make up for another one that is not.
    return plain(v, x) + time_major(v, x)


def by_a_loop(v, x):
    *_, states = tf.while_loop(
        lambda i, a: i < 2, lambda i, a: (i + 1, tf.tanh(a @ v[0] + v[1])), (0, x), maximum_iterations=2
    )
    return states


def by_a_branch(v, x):
    return tf.cond(
        tf.reduce_sum(v[1]) > 0, lambda: tf.tanh(x @ v[0] + v[1]), lambda: tf.tanh(x @ v[0] - v[1])
    )


def dilated(v, x):
    # The convolution cuts its images into several, along the axis of examples.
    images = tf.nn.convolution(x[:, None], v[0][None, :2, :, None], dilations=[1, 2], padding="SAME")
    return tf.tanh(images[:, 0] + v[1])


def coupled(v, x):
    states = x @ v[0] + v[1]
    return tf.tanh(states - tf.reduce_mean(states, axis=0))


def at_night(*parameters):
    """Mark a case that resembles one of those that run every time."""
    return pytest.param(*parameters, marks=pytest.mark.nightly)


REFUSED = [
    *map(at_night, (time_major_rows, features_first, by_a_branch)),
    two_arrangements,
    by_a_loop,
]


def derivatives_of(call, shapes=SHAPES, head=2, shape=(T, C)):
    """Return the derivatives of a model of sequences with a linear head."""

    def measure(variables, constants, inputs, targets):
        return tf.reduce_sum(call(variables, inputs[0]), axis=1) @ variables[head]

    def losses(variables, constants, inputs, targets, weights, scales):
        outputs = measure(variables, constants, inputs, [])
        return scales[0] * weights[0] * tf.reduce_sum((outputs - targets[0]) ** 2, axis=1)

    weights = tf.TensorSpec((None,), tf.float64)
    model = PureModel(
        measure=measure,
        losses=losses,
        loss_scales=lambda variables, constants, inputs, targets, weights: tf.ones(1, tf.float64),
        regularizer=None,
        trained=tuple(tf.TensorSpec(s, tf.float64) for s in shapes),
        state=(),
        constants=(),
        inputs=(tf.TensorSpec((None, *shape), tf.float64),),
        measure_targets=(),
        loss_targets=(tf.TensorSpec((None, D), tf.float64),),
        loss_weights=(weights,),
    )
    return Derivatives(model)


def problem(derivatives, count=5):
    rng = np.random.default_rng(0)
    size, shape = derivatives.model.point_size, derivatives.model.inputs[0].shape[1:]
    point, displacement = rng.normal(size=size), 0.1 * rng.normal(size=size)
    x = rng.normal(size=(count, *shape))
    batch = Batch([x], [rng.normal(size=(count, D))], [rng.uniform(0.5, 2, count)], np.ones(1))
    return point, batch, StepPath(point, point + displacement, displacement, []), Block([x], [])


def expected_gradients(derivatives, point, batch):
    """Return the gradients of single samples, from a tape for each."""
    model, rows = derivatives.model, []
    for k in range(len(batch)):
        part = batch.part(k, k + 1)
        z = tf.constant(point)
        with tf.GradientTape() as tape:
            tape.watch(z)
            arguments = (part.inputs, part.targets, part.weights, tf.constant(part.scales))
            loss = model.losses(model.unpack(z), [], *arguments)
        rows.append(tape.gradient(loss, z).numpy())
    return np.stack(rows)


def expected_rows(derivatives, path, block):
    """Return the gradients of single measurements in the middle of the path, from a tape for each."""
    model, rows = derivatives.model, []
    for k in range(len(block)):
        z = tf.constant(path.start + path.displacement / 2)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(z)
            outputs = tf.unstack(model.measure(model.unpack(z), [], [block.inputs[0][k : k + 1]], [])[0])
        rows.append([tape.gradient(output, z).numpy() for output in outputs])
    return np.array(rows)


def verdicts(derivatives, point, batch, path, block):
    """Return what the trials say of samples and of measurements."""
    return [
        trials.sample_gradients_hold(derivatives.loss, point, [], batch),
        trials.sample_products_hold(derivatives.loss, point, [], batch),
        trials.row_rules_hold(derivatives.measurement, path, block),
        trials.row_rules_hold(derivatives.measurement, path, block, at_once=None),
        trials.row_products_hold(derivatives.measurement, path, block),
    ]


def check(derivatives, holds):
    """Hold the verdicts of all trials, and the numbers of the way they choose, against tapes."""
    point, batch, path, block = problem(derivatives)
    assert verdicts(derivatives, point, batch, path, block) == [holds] * 5
    found = derivatives.loss.sample_gradients(point, [], batch, by_rule=holds)
    np.testing.assert_allclose(found, expected_gradients(derivatives, point, batch), atol=1e-12)
    middle = Quadrature.same(len(block))
    found = derivatives.measurement.path_rows(path, middle, block, route="rules" if holds else "loop")
    np.testing.assert_allclose(found, expected_rows(derivatives, path, block), atol=1e-12)


@pytest.mark.parametrize("call", [plain, at_night(dilated)])
def test_rules_hold_where_examples_come_one_after_the_other(call):
    check(derivatives_of(call), holds=True)


@pytest.mark.parametrize("call", REFUSED)
def test_other_arrangements_are_left_to_the_loop(call):
    check(derivatives_of(call), holds=False)


@pytest.mark.parametrize("count", [1, at_night(T)])
def test_arrangements_are_told_apart_whatever_the_number_of_examples(count):
    # A single example is in place in any arrangement. With as many examples as positions, shapes fit by chance.
    derivatives = derivatives_of(time_major)
    point, batch, path, block = problem(derivatives, count)
    assert verdicts(derivatives, point, batch, path, block) == [False] * 5


def test_layers_behind_a_head_of_zeros_are_tried_too():
    derivatives = derivatives_of(time_major)
    point, batch, path, block = problem(derivatives)
    point[-C * D :] = 0
    still = dataclasses.replace(path, start=point, displacement=np.zeros_like(point))
    assert verdicts(derivatives, point, batch, still, block) == [False] * 5
    assert trials.samples_are_coupled(derivatives_of(coupled).loss, point, [], batch)
    assert not trials.samples_are_coupled(derivatives.loss, point, [], batch)


def test_models_whose_weights_are_all_zero_can_be_tried():
    derivatives = derivatives_of(plain)
    point, batch, *_ = problem(derivatives)
    assert trials.sample_gradients_hold(derivatives.loss, np.zeros_like(point), [], batch)
    assert trials.sample_products_hold(derivatives.loss, np.zeros_like(point), [], batch)


@pytest.mark.parametrize(
    ("make", "holds"),
    [
        at_night(lambda: keras.layers.LSTM(C, return_sequences=True), False),
        at_night(lambda: keras.layers.LSTM(C, return_sequences=True, unroll=True), True),
        at_night(lambda: keras.layers.Conv1D(C, 2, dilation_rate=2, padding="same"), True),
        at_night(lambda: keras.layers.DepthwiseConv1D(2, dilation_rate=2, padding="same"), True),
        # test_layers.py compares the rules of attention and convolutions with a loop every time.
        at_night(lambda: keras.layers.MultiHeadAttention(2, 2), True),
    ],
)
def test_layers(make, holds):
    with double_precision():
        layer = make()
        is_attention = isinstance(layer, keras.layers.MultiHeadAttention)
        layer(*[np.zeros((1, T, C))] * (1 + is_attention))
        variables = layer.trainable_variables

        def call(v, x):
            mapping = list(zip(variables, v[:-1], strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                return layer(*[x] * (1 + is_attention))

        shapes = [*(tuple(v.shape) for v in variables), (C, D)]
        check(derivatives_of(call, shapes, head=-1), holds)


def test_the_number_of_jvps_at_once_does_not_matter():
    for call, holds in ((plain, True), (time_major, False)):
        derivatives = derivatives_of(call)
        _, _, path, block = problem(derivatives)
        found = [trials.row_products_hold(derivatives.measurement, path, block, at_once=k) for k in (2, 4)]
        assert found == [holds, holds]


def test_random_numbers_make_samples_coupled():
    def noisy(v, x):
        return plain(v, x) + tf.random.stateless_normal(tf.shape(x), (1, 2), dtype=x.dtype)

    derivatives = derivatives_of(noisy)
    point, batch, *_ = problem(derivatives)
    assert trials.samples_are_coupled(derivatives.loss, point, [], batch)


def test_many_variables_are_tried_in_groups(monkeypatch: pytest.MonkeyPatch):
    # More variables than groups: a wrong rule of one shows in the sum of its group.
    monkeypatch.setattr(trials, "_MOST_GROUPS", 3)
    few = 4

    def call(v, x):
        return sum(x @ weight for weight in v[:few])

    def wrong(v, x):
        return call(v, x) + time_major([v[few - 1], v[few], v[-1]], x)

    shapes = [*[(C, C)] * few, (C,), (C, D)]
    for model, holds in ((call, True), (wrong, False)):
        derivatives = derivatives_of(model, shapes, head=-1)
        _, _, path, block = problem(derivatives)
        assert trials.row_rules_hold(derivatives.measurement, path, block) == holds
