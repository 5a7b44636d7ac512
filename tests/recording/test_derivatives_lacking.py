"""Operations in the way of a derivative are found, also in loops, branches and called functions, and only these."""

import pytest
import tensorflow as tf

from explaind_tf.errors import RefusedError
from explaind_tf.recording.exporting.purity import refuse_without_derivative

IMAGE = (2, 4, 4, 3)
CONSTANT = tf.constant(0.3, tf.float32, IMAGE)
TRANSFORM = tf.constant([[1.0, 0.1, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]])


def transformed(images, transform):
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transform,
        output_shape=[4, 4],
        fill_value=0.0,
        interpolation="BILINEAR",
    )


def truncated(x):
    return tf.raw_ops.TruncateMod(x=x, y=0.3 * tf.ones_like(x))


def looped(function):
    return lambda w: tf.while_loop(lambda i, _: i < 2, lambda i, a: (i + 1, function(a)), (0, w))[1]


def branched(function):
    return lambda w: tf.cond(tf.reduce_sum(w) > 0.0, lambda: function(w), lambda: w)


def by_a_second_variable(w):
    """The values of the second loop variable follow the first one, a round later."""

    def body(i, a, b):
        return i + 1, 2.0 * a, b + tf.image.hsv_to_rgb(b + a)

    return tf.while_loop(lambda i, *_: i < 2, body, (0, w, CONSTANT))[2]


FOUND = {
    "no derivative": (truncated, "TruncateMod. TensorFlow has no derivative"),
    "in a loop": (looped(truncated), "TruncateMod. TensorFlow has no derivative"),
    "in a branch": (branched(truncated), "TruncateMod. TensorFlow has no derivative"),
    "in a call": (tf.function(truncated), "TruncateMod. TensorFlow has no derivative"),
    "in a call in a loop": (looped(tf.function(truncated)), "TruncateMod. TensorFlow has no derivative"),
    "in a loop behind a stop": (looped(lambda x: x + tf.stop_gradient(truncated(x))), "TruncateMod"),
    "colours": (tf.image.hsv_to_rgb, "HSVToRGB. TensorFlow takes its derivative by its argument 'images'"),
    "colours in a loop": (looped(tf.image.hsv_to_rgb), "HSVToRGB. .* argument 'images'"),
    "colours in a branch": (branched(tf.image.hsv_to_rgb), "HSVToRGB. .* argument 'images'"),
    "second variable of a loop": (by_a_second_variable, "HSVToRGB. .* argument 'images'"),
    "range": (lambda w: tf.range(w[0, 0, 0, 0], 9.0, 2.0), "Range. .* argument 'start'"),
    "transform": (lambda w: transformed(CONSTANT, TRANSFORM * tf.reduce_mean(w)), "argument 'transforms'"),
    "padded by a weight": (
        lambda w: tf.pad(CONSTANT, [[0, 0]] * 3 + [[0, 1]], constant_values=w[0, 0, 0, 0]),
        "PadV2. .* argument 'constant_values'",
    ),
    "one-hot of a weight": (lambda w: tf.one_hot([0, 1], 3, on_value=w[0, 0, 0, 0]), "argument 'on_value'"),
    "decoded": (
        lambda w: tf.nn.ctc_greedy_decoder(w[0], [4] * 4)[1],
        "CTCGreedyDecoder. .* argument 'inputs'",
    ),
    "spectrum": (
        lambda w: tf.raw_ops.TruncateMod(x=tf.abs(tf.signal.rfft(w)), y=0.3),
        "TruncateMod",
    ),
    "list": (
        lambda w: truncated(
            tf.raw_ops.TensorListStack(
                input_handle=tf.raw_ops.TensorListFromTensor(tensor=w, element_shape=IMAGE[1:]),
                element_shape=IMAGE[1:],
                element_dtype=tf.float32,
            )
        ),
        "TruncateMod",
    ),
}
RIGHT = {
    "of constants": lambda w: w + truncated(CONSTANT),
    "colours of constants": lambda w: w * tf.image.hsv_to_rgb(CONSTANT),
    "colours of constants in a loop": looped(lambda a: a * tf.image.hsv_to_rgb(CONSTANT)),
    "images by a fixed transform": lambda w: transformed(w, TRANSFORM),
    "end of a range": lambda w: tf.range(0.0, 3.0 + w[0, 0, 0, 0], 1.0),
    "range from a step": lambda w: w[0, 0] + tf.range(tf.floor(w[0, 0, 0, 0]), 9.0, 3.0)[:1],
    "range by a shape": lambda w: w[0, 0] + tf.range(0.0, tf.cast(tf.shape(w)[-1], tf.float32), 1.0),
    "unused": lambda w: (truncated(w), w)[1],
    "in the condition of a loop": lambda w: tf.while_loop(
        lambda i, a: (i < 2) & (tf.reduce_sum(truncated(a)) < 1e3), lambda i, a: (i + 1, 2.0 * a), (0, w)
    )[1],
    "integers": lambda w: w + tf.cast(tf.raw_ops.TruncateMod(x=tf.cast(w, tf.int32), y=2), tf.float32),
}


def refuse(function):
    spec = tf.TensorSpec(IMAGE, tf.float32)
    refuse_without_derivative(
        tf.function(lambda w: [function(w)], input_signature=[spec], autograph=False), 1
    )


@pytest.mark.parametrize("name", FOUND)
def test_what_is_in_the_way_is_found(name):
    function, told = FOUND[name]
    with pytest.raises(RefusedError, match=told):
        refuse(function)


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_not_in_the_way_is_left_alone(name):
    refuse(RIGHT[name])


def test_an_operation_in_a_loop_is_named_with_the_loop():
    with pytest.raises(
        RefusedError, match=r"TruncateMod' within 'while', an operation of the type TruncateMod"
    ):
        refuse(looped(truncated))
