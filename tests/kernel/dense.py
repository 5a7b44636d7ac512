"""A small dense model with a state, its losses, and its Jacobian by a tape."""

import tensorflow as tf

from explaind_tf.kernel.functions import PureModel

SIZE, STATE = 4 * 5 + 5 * 3, 3


def measure(variables, constants, inputs, targets):
    first, second, state = variables
    return tf.tanh(inputs[0] @ first) @ second * tf.exp(state)


def losses(variables, constants, inputs, targets, weights, scales):
    outputs = measure(variables, constants, inputs, [])
    return scales[0] * weights[0] * tf.reduce_sum((outputs - targets[0]) ** 2, axis=1)


def coupled_losses(variables, constants, inputs, targets, weights, scales):
    outputs = measure(variables, constants, inputs, [])
    outputs = outputs - tf.reduce_mean(outputs, axis=0)
    return scales[0] * weights[0] * tf.reduce_sum((outputs - targets[0]) ** 2, axis=1)


def model(losses=losses):
    return PureModel(
        measure=measure,
        losses=losses,
        loss_scales=lambda variables, constants, inputs, targets, weights: (
            1 / tf.reduce_sum(weights[0])[None]
        ),
        regularizer=lambda variables, constants, inputs: tf.reduce_sum(variables[0] ** 2),
        trained=(tf.TensorSpec((4, 5), tf.float64), tf.TensorSpec((5, 3), tf.float64)),
        state=(tf.TensorSpec((STATE,), tf.float64),),
        constants=(),
        inputs=(tf.TensorSpec((None, 4), tf.float64),),
        measure_targets=(),
        loss_targets=(tf.TensorSpec((None, 3), tf.float64),),
        loss_weights=(tf.TensorSpec((None,), tf.float64),),
    )


def unpack(point):
    return [tf.reshape(point[:20], (4, 5)), tf.reshape(point[20:35], (5, 3)), point[35:]]


def arguments(batch):
    return batch.inputs, batch.targets, batch.weights, batch.scales


def jacobian_of(function, point):
    variable = tf.constant(point)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(variable)
        values = function(variable)
    return tape.jacobian(values, variable, experimental_use_pfor=False).numpy()
