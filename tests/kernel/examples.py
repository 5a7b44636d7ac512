"""The gradients of single examples by rules, compared with a loop of GradientTape over the examples, in float64."""

import keras
import numpy as np
import tensorflow as tf

from explaind_tf.kernel.derivatives.example_gradients import ExampleGradients

COUNTS = (1, 2, 5)
T, C, D = 3, 4, 2  # positions, features read, features returned


def losses_of(call):
    """Return per-example losses that give each element of the outputs another weight."""

    def losses(variables, examples):
        outputs = call(variables, examples)
        flat = tf.reshape(tf.sin(outputs), (tf.shape(examples[0])[0], -1))
        return tf.reduce_sum(flat * (1 + tf.cast(tf.range(tf.shape(flat)[1]), flat.dtype)), axis=1)

    return losses


def by_rules(call, variables, examples):
    """Return a compiled ``(variables, examples, rows) -> (gradients, products with the rows)``."""
    losses = losses_of(call)

    def both(variables, examples, rows):
        own = losses(variables, examples)
        found = ExampleGradients(own, None, variables, examples, tf.shape(own)[0])
        return found.gradients(), found.contract(rows)

    return tf.function(
        both,
        autograph=False,
        input_signature=[
            [tf.TensorSpec(v.shape, v.dtype) for v in variables],
            [tf.TensorSpec((None, *x.shape[1:]), x.dtype) for x in examples],
            [tf.TensorSpec((None, *v.shape), tf.float64) for v in variables],
        ],
    )


def one_by_one(call, variables, examples):
    """Return the same gradients, (K, V, ...), from a tape for each example."""
    losses, rows = losses_of(call), []
    for k in range(len(examples[0])):
        with tf.GradientTape() as tape:
            tape.watch(variables)
            loss = losses(variables, [x[k : k + 1] for x in examples])
        found = tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        rows.append([tf.reshape(tf.convert_to_tensor(g), (-1,)).numpy().astype(float) for g in found])
    return rows


def check(call, variables, *examples, row_count=3, counts=COUNTS):
    """Compare the rules with the loop, for several numbers of examples."""
    rng = np.random.default_rng(1)
    variables = [tf.constant(v) for v in variables]
    compiled = by_rules(call, variables, examples)
    for count in counts:
        own = [tf.constant(x[:count]) for x in examples]
        rows = [tf.constant(rng.normal(size=(row_count, *v.shape))) for v in variables]
        gradients, products = compiled(variables, own, rows)
        expected = one_by_one(call, variables, own)
        scale = max(1.0, max(np.max(np.abs(g)) for gs in expected for g in gs))
        # Sums of about a hundred terms in another order.
        np.testing.assert_allclose(gradients, [np.concatenate(g) for g in expected], atol=1e-12 * scale)
        flat = [np.reshape(r, (row_count, -1)) for r in rows]
        expected = [[[r @ g for r, g in zip(row, gs, strict=True)] for gs in expected] for row in zip(*flat)]  # noqa: B905
        np.testing.assert_allclose(products, expected, atol=1e-11 * scale)


def draw(*shapes):
    """Return random arrays of some shapes; the first axis of examples has the largest count."""
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) for shape in shapes]


def tokens(*shape, size=C):
    return np.random.default_rng(2).integers(0, size, (max(COUNTS), *shape)).astype("int32")


def check_layer(layer, x):
    """Compare the rules with the loop for a layer in inference mode, for all its variables."""
    layer(x)
    variables = [v for v in layer.variables if "seed" not in v.path]
    rng = np.random.default_rng(3)
    values = [rng.uniform(0.5, 1.5, v.shape) * rng.choice([1, -1], v.shape) for v in variables]
    values = [np.abs(a) if "variance" in v.path else a for a, v in zip(values, variables, strict=True)]

    def call(v, e):
        with keras.StatelessScope(state_mapping=list(zip(variables, v, strict=True))):
            return layer(e[0], training=False)

    check(call, values, x, row_count=2)
