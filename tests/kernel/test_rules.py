"""The gradients of single examples by rules against a loop of GradientTape over the examples, in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from explaind_tf.kernel.derivatives.example_gradients import ExampleGradients
from explaind_tf.kernel.operations.uses import NotCoveredError
from tests.helpers import double_precision

layers = keras.layers
COUNTS = (1, 2, 5)
T, C, D = 3, 4, 2  # positions, features read, features returned


def losses_of(call):
    """Return per-example losses in which no element of the outputs can stand for another."""

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
    """Return the same gradients, (K, V, ...), by a tape for each example."""
    losses, rows = losses_of(call), []
    for k in range(len(examples[0])):
        with tf.GradientTape() as tape:
            tape.watch(variables)
            loss = losses(variables, [x[k : k + 1] for x in examples])
        found = tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        rows.append([tf.reshape(tf.convert_to_tensor(g), (-1,)).numpy().astype(float) for g in found])
    return rows


def check(call, variables, *examples, row_count=3, counts=COUNTS):
    """Hold the rules against the loop, for several numbers of examples."""
    rng = np.random.default_rng(1)
    variables = [tf.constant(v) for v in variables]
    compiled = by_rules(call, variables, examples)
    for count in counts:
        own = [tf.constant(x[:count]) for x in examples]
        rows = [tf.constant(rng.normal(size=(row_count, *v.shape))) for v in variables]
        gradients, products = compiled(variables, own, rows)
        expected = one_by_one(call, variables, own)
        scale = max(1.0, max(np.max(np.abs(g)) for gs in expected for g in gs))
        # Sums of some hundred terms in another order.
        np.testing.assert_allclose(gradients, [np.concatenate(g) for g in expected], atol=1e-12 * scale)
        flat = [np.reshape(r, (row_count, -1)) for r in rows]
        expected = [[[r @ g for r, g in zip(row, gs, strict=True)] for gs in expected] for row in zip(*flat)]  # noqa: B905
        np.testing.assert_allclose(products, expected, atol=1e-11 * scale)


def draw(*shapes):
    """Return arrays of some shapes: examples have the largest count first."""
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) for shape in shapes]


def tokens(*shape, size=C):
    return np.random.default_rng(2).integers(0, size, (max(COUNTS), *shape)).astype("int32")


# Products.


@pytest.mark.parametrize("shape", [(C,), (T, C), (2, T, C)])
@pytest.mark.parametrize("is_transposed", [False, True])
def test_matrix_products(shape, is_transposed):
    x, w = draw((5, *shape), (D, C) if is_transposed else (C, D))
    check(lambda v, e: tf.matmul(e[0], v[0], transpose_b=is_transposed), [w], x)


@pytest.mark.parametrize("is_transposed", [False, True])
@pytest.mark.parametrize(("row_count", "positions"), [(1, 1), (1, 40), (40, 1), (12, 12)])
def test_products_with_few_rows_and_with_many(row_count, positions, is_transposed):
    # Through the outputs where there are few rows or positions, through the gradients otherwise.
    x, w = draw((5, positions, C), (D, C) if is_transposed else (C, D))
    check(lambda v, e: tf.matmul(e[0], v[0], transpose_b=is_transposed), [w], x, row_count=row_count)


def test_rows_of_one_example_merged_into_the_first_axis():
    x, w, b, u, k = draw((5, T, C), (C, C), (C,), (C, D), (1, 2, 1, 1))

    def call(v, e):
        flat = tf.reshape(e[0], (-1, C)) @ v[0] + v[1]
        images = tf.nn.conv2d(flat[:, None, :, None], v[3], 1, "SAME")[:, 0, :, 0]
        return tf.einsum("ac,cd->ad", images, v[2])

    check(call, [w, b, u, k], x)


def test_embeddings_and_tied_weights():
    table, w = draw((C, D), (D, D))

    def call(v, e):
        return tf.matmul(tf.gather(v[0], e[0]) @ v[1], v[0], transpose_b=True)

    check(call, [table, w], tokens(T))


def test_a_token_for_each_example_and_a_row_of_each_table():
    check(lambda v, e: tf.gather(v[0], e[0]), draw((C, 2, D)), tokens())


def test_lookups_in_a_transposed_table_and_in_a_computed_one():
    def call(v, e):
        return tf.gather(tf.transpose(v[0]), e[0]) * tf.gather(tf.exp(v[0]), e[0] % D, axis=0)[..., :D]

    check(call, draw((D, C)), tokens(T))


@pytest.mark.parametrize(
    ("equation", "read", "weight"),
    [
        ("bc,cd->bd", (C,), (C, D)),
        ("btc,cd->btd", (T, C), (C, D)),
        ("btc,chd->bthd", (T, C), (C, 2, D)),
        ("bthd,hdc->btc", (T, 2, D), (2, D, C)),
        ("btc,tcd->bd", (T, C), (T, C, D)),
        ("btc,tcd->bdt", (T, C), (T, C, D)),
        ("btc,c->bt", (T, C), (C,)),
        ("bc,d->bcd", (C,), (D,)),
        ("...c,cd->...d", (2, T, C), (C, D)),
        ("b...c,cd->b...d", (2, T, C), (C, D)),
        ("b...c,cd->bd...", (2, T, C), (C, D)),
    ],
)
@pytest.mark.parametrize("is_first", [False, True])
def test_einsums(equation, read, weight, is_first):
    x, w = draw((5, *read), weight)
    if is_first:
        labels, made = equation.split("->")
        equation = ",".join(reversed(labels.split(","))) + "->" + made

    def call(v, e):
        # Some layers avoid the operation; this is it.
        operands = [v[0], e[0]] if is_first else [e[0], v[0]]
        return tf.raw_ops.Einsum(inputs=operands, equation=equation)

    check(call, [w], x)


# Elementwise operations.

OPERATIONS = {
    "add": tf.add,
    "sub": tf.subtract,
    "mul": tf.multiply,
    "div": tf.divide,
    "max": tf.maximum,
    "min": tf.minimum,
    "squared difference": tf.math.squared_difference,
    "pow": lambda a, b: tf.pow(tf.abs(a) + 1, tf.sin(b)),
    "where": lambda a, b: tf.where(tf.sin(3 * a + b) > 0, a, b),
}


@st.composite
def _broadcasts(draw):
    rest = draw(st.lists(st.integers(1, 3), max_size=3))
    axes = draw(st.integers(0, len(rest)))
    source = [draw(st.sampled_from([1, size])) for size in rest[len(rest) - axes :]]
    if axes == len(rest):
        source = [1] * draw(st.integers(0, 1)) + source
    kept = [draw(st.sampled_from([True, True, False])) for _ in rest]
    return source, rest, kept


@settings(max_examples=25, derandomize=True)
@given(_broadcasts(), st.sampled_from(sorted(OPERATIONS)), st.booleans())
def test_elementwise_operations_of_any_shapes(shapes, name, is_first):
    source, rest, kept = shapes
    # The example's own axes may be of size one, too, where the variable's are not.
    read = [
        size if keep or axis - (len(rest) - len(source)) < 0 else 1
        for axis, (size, keep) in enumerate(zip(rest, kept, strict=True))
    ]
    if not read and source:
        read = [1]  # without it, the variable's axis would be that of the examples
    x, v = draw((5, *read), source)
    v, operation = v + 3, OPERATIONS[name]  # away from zero, where quotients have poles
    check(
        lambda v, e: operation(v[0], e[0]) if is_first else operation(e[0], v[0]),
        [v],
        x,
        row_count=2,
        counts=(1, 3),
    )


@settings(max_examples=15, derandomize=True)
@given(st.lists(st.integers(1, 3), max_size=3), st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_products_of_any_shapes(positions, inner, outer, is_transposed):
    x, w = draw((5, *positions, inner), (outer, inner) if is_transposed else (inner, outer))
    check(lambda v, e: tf.matmul(e[0], v[0], transpose_b=is_transposed), [w], x, row_count=2, counts=(1, 3))


@pytest.mark.parametrize("shape", [(1, T, C), (1, 1, C), (T, C), (T, 1), (1, T, 1), (C,), (1,), ()])
def test_position_embeddings_scales_and_offsets(shape):
    x, *variables = draw((5, T, C), shape, shape)
    check(lambda v, e: e[0] * v[0] + tf.sin(e[0]) - v[1], variables, x)


def test_tokens_that_are_repeated_for_each_example():
    x, token, mask, end = draw((5, T, C), (1, 1, C), (C,), (1, 1, C))

    def call(v, e):
        count = tf.shape(e[0])[0]
        first = tf.broadcast_to(v[0], (count, 1, C))
        last = tf.tile(v[2], (count, 2, 1))
        masked = tf.where(e[0] > 0, e[0], v[1])
        return tf.concat([first, masked, last], axis=1) ** 2

    check(call, [token, mask, end], x)


# Variables on their way to a use.


def test_a_variable_through_reshapes_and_transposes():
    (w,) = draw((C, D, T))
    x = draw((5, C))[0]

    def call(v, e):
        moved = tf.reshape(tf.transpose(v[0], (2, 0, 1)), (T * C, D))
        moved = tf.squeeze(tf.expand_dims(tf.identity(moved), 1), 1)
        return tf.tile(e[0], (1, T)) @ moved

    check(call, [w], x)


def test_variables_used_twice_in_different_ways():
    x, w, u = draw((5, C), (C, C), (C, C))

    def call(v, e):
        hidden = tf.tanh(e[0] @ v[0])
        mixed = hidden @ tf.transpose(v[0]) + v[0][0]  # a row of it, as an offset
        # Of both: a product of variables, which examples meet as one.
        return mixed @ (v[0] @ v[1]) + tf.reduce_sum(v[1] ** 2)

    check(call, [w, u], x)


def test_variables_that_are_cut_looked_up_cast_or_stopped():
    x, w, table, idle = draw((5, T, C), (C, 3 * D), (T + 1, 3 * D), (D,))

    def call(v, e):
        q, k, o = tf.split(v[0], 3, axis=1)
        read = e[0] @ q + e[0] @ k * tf.tanh(e[0] @ o)
        places = tf.cast(tf.gather(v[1], tf.range(T)), tf.float64)
        return read + places[:, :D] * tf.stop_gradient(v[2])

    check(call, [w, table.astype("float32"), idle], x)


def test_variables_of_another_dtype_than_the_first():
    x, w, b = draw((5, C), (C, D), (D,))

    def call(v, e):
        return tf.cast(tf.cast(e[0] @ v[0], tf.float32) + v[1], tf.float64)

    variables = [tf.constant(w), tf.constant(b.astype("float32"))]
    rows = [tf.constant(r) for r in draw((2, C, D), (2, D))]
    gradients, products = by_rules(call, variables, [x])(variables, [x], rows)
    expected = np.array([np.concatenate(g) for g in one_by_one(call, variables, [tf.constant(x)])])
    np.testing.assert_allclose(gradients, expected, rtol=1e-5, atol=1e-5)  # float32
    flat = np.concatenate([np.reshape(r, (2, -1)) for r in rows], axis=1)
    np.testing.assert_allclose(np.sum(products, axis=-1), flat @ expected.T, rtol=1e-4, atol=1e-4)


def test_comparisons_with_variables_and_variables_that_examples_never_meet():
    x, w, v = draw((5, C), (C, C), (C,))

    def call(variables, e):
        above = tf.cast(e[0] > variables[1], tf.float64)
        return above * (e[0] @ variables[0])

    check(call, [w, v], x)
    check(lambda variables, e: tf.sin(e[0]), [w, v], x)


def test_loops_over_examples_alone_or_over_variables_alone_are_no_uses():
    x, w = draw((5, C), (C, C))

    def call(v, e):
        powers = tf.map_fn(lambda row: 2 * row, v[0])  # lists of tensors carry its derivative
        _, read = tf.while_loop(lambda i, _: i < 3, lambda i, a: (i + 1, tf.sin(a)), (0, e[0]))
        return read @ powers

    check(call, [w], x)


# Layers.

ON_FEATURES = {
    "Dense": lambda: layers.Dense(D),
    "BatchNormalization": lambda: layers.BatchNormalization(),
    "PReLU": lambda: layers.PReLU("uniform"),
}
ON_SEQUENCES = {
    "EinsumDense": lambda: layers.EinsumDense("abc,cd->abd", output_shape=(T, D), bias_axes="d"),
    "EinsumDense, by position": lambda: layers.EinsumDense("abc,bcd->abd", (T, D), bias_axes="bd"),
    "LayerNormalization": lambda: layers.LayerNormalization(),
    "LayerNormalization, two axes": lambda: layers.LayerNormalization(axis=(1, 2)),
    "RMSNormalization": lambda: layers.RMSNormalization(),
    "MultiHeadAttention": lambda: Attends(layers.MultiHeadAttention(2, 2)),
    "GroupQueryAttention": lambda: Attends(layers.GroupQueryAttention(2, 2, 1)),
    "AdditiveAttention": lambda: Attends(layers.AdditiveAttention(), is_list=True),
    "Conv1D": lambda: layers.Conv1D(D, 2),
    "Conv1D, causal": lambda: layers.Conv1D(D, 2, padding="causal", dilation_rate=2),
    "Conv1DTranspose": lambda: layers.Conv1DTranspose(D, 2, strides=2),
    "SeparableConv1D": lambda: layers.SeparableConv1D(D, 2),
    "TimeDistributed": lambda: layers.TimeDistributed(layers.Dense(D)),
    "GRU, unrolled": lambda: layers.GRU(D, unroll=True),
}
ON_IMAGES = {
    "Conv2D": lambda: layers.Conv2D(D, 3),
    "Conv2D, strides": lambda: layers.Conv2D(D, (3, 2), strides=2, padding="same"),
    "Conv2D, dilation": lambda: layers.Conv2D(D, 2, dilation_rate=2, padding="same"),
    "Conv2D, dilation, not padded": lambda: layers.Conv2D(D, 2, dilation_rate=(2, 1)),
    # As many filters as places, or more: one product of patches instead of one by one.
    "Conv2D, many filters": lambda: layers.Conv2D(20, (3, 2), padding="same"),
    "Conv2D, many filters, strides": lambda: layers.Conv2D(7, 2, strides=(2, 1)),
    "Conv2D, many filters, strides, padded": lambda: layers.Conv2D(9, 3, strides=2, padding="same"),
    "Conv2D, many filters, dilation": lambda: layers.Conv2D(20, 2, dilation_rate=(2, 1)),
    "DepthwiseConv2D": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
    "DepthwiseConv2D, strides": lambda: layers.DepthwiseConv2D(3, strides=2, padding="same"),
    "SeparableConv2D": lambda: layers.SeparableConv2D(D, 3),
    "DepthwiseConv2D, dilation": lambda: layers.DepthwiseConv2D(2, dilation_rate=2),
    "SeparableConv2D, dilation": lambda: layers.SeparableConv2D(D, 2, dilation_rate=2),
    "Conv2DTranspose": lambda: layers.Conv2DTranspose(D, 3),
    "Conv2DTranspose, strides": lambda: layers.Conv2DTranspose(D, 3, strides=2, padding="same"),
    "GroupNormalization": lambda: layers.GroupNormalization(2),
    "BatchNormalization": lambda: layers.BatchNormalization(),
    "PReLU": lambda: layers.PReLU("uniform", shared_axes=(1, 2)),
}
ON_VOLUMES = {
    "Conv3D": lambda: layers.Conv3D(D, 2),
    "Conv3D, strides": lambda: layers.Conv3D(D, 2, strides=2, padding="same"),
    "Conv3D, dilation": lambda: layers.Conv3D(D, 2, dilation_rate=2),
    "Conv3DTranspose": lambda: layers.Conv3DTranspose(D, 2, strides=2),
}


class Attends(keras.layers.Layer):
    """Attention of a sequence to itself."""

    def __init__(self, attention, *, is_list=False):
        super().__init__()
        self.attention, self._is_list = attention, is_list

    def call(self, x):
        return self.attention([x, x]) if self._is_list else self.attention(x, x)  # which builds it


def check_layer(layer, x):
    """Hold a layer in inference mode against the loop, by all its variables."""
    layer(x)
    variables = [v for v in layer.variables if "seed" not in v.path]
    rng = np.random.default_rng(3)
    values = [rng.uniform(0.5, 1.5, v.shape) * rng.choice([1, -1], v.shape) for v in variables]
    values = [np.abs(a) if "variance" in v.path else a for a, v in zip(values, variables, strict=True)]

    def call(v, e):
        with keras.StatelessScope(state_mapping=list(zip(variables, v, strict=True))):
            return layer(e[0], training=False)

    check(call, values, x, row_count=2)


@pytest.mark.parametrize("name", ON_FEATURES)
def test_layers_on_features(name, float64):
    check_layer(ON_FEATURES[name](), draw((5, C))[0])


@pytest.mark.parametrize("name", ON_SEQUENCES)
def test_layers_on_sequences(name, float64):
    check_layer(ON_SEQUENCES[name](), draw((5, T, C))[0])


@pytest.mark.parametrize("name", ON_IMAGES)
def test_layers_on_images(name, float64):
    check_layer(ON_IMAGES[name](), draw((5, 5, 4, C))[0])


@pytest.mark.parametrize("name", ON_VOLUMES)
def test_layers_on_volumes(name, float64):
    check_layer(ON_VOLUMES[name](), draw((5, 3, 4, 3, 2))[0])


def test_embedding_layers(float64):
    check_layer(layers.Embedding(C, D), tokens(T))
    check_layer(layers.Embedding(C, D), tokens(T) - 1)  # Keras counts negative ones from the end


def test_a_layer_used_twice_and_its_transpose(float64):
    shared = layers.ReversibleEmbedding(C, D)

    class Twice(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.shared, self.inner = shared, layers.Dense(D, "tanh")

        def call(self, x):
            return self.shared(self.inner(self.inner(self.shared(x))), reverse=True)

    check_layer(Twice(), tokens(T))


# What has no rule.


@tf.custom_gradient
def _doubled(x, w):
    return x @ w, lambda d: (2 * d @ tf.transpose(w), 2 * tf.transpose(x) @ d)


REFUSED = {
    "a product from the left": ((C, T, D), (C, C), lambda x, w: tf.matmul(w[None, :T, :T], x)),
    "a stack of matrices": ((T, C), (T, C, D), lambda x, w: tf.matmul(x[:, :, None], w)),
    "a gather along the second axis": ((), (C, D), lambda x, w: tf.gather(w, tf.cast(x, tf.int32) % D, axis=1)),
    "a variable with an axis of examples": ((), (C,), lambda x, w: w * tf.reduce_sum(x)),
    "a filter made of examples": ((3, 2, D), (1, 5, 5, 2), lambda x, w: tf.nn.conv2d(w, x[0][None], 1, "SAME")),
    "a tile of several elements": ((), (1, C), lambda x, w: tf.tile(w, (tf.shape(x)[0], 2))),
    "an einsum without an axis of examples": ((C,), (C, D), lambda x, w: tf.einsum("bc,cd->db", x, w)),
    "a sum over examples": ((C,), (C, D), lambda x, w: tf.einsum("bc,bd->cd", w, w) * tf.reduce_sum(x)),
    "a scan": ((C,), (C, C), lambda x, w: tf.while_loop(lambda a: True, lambda a: (a @ w,), (x,), maximum_iterations=2)[0]),
    "a branch": ((C,), (C, C), lambda x, w: tf.cond(tf.reduce_sum(x) > 0, lambda: x @ w, lambda: x @ (w + 1))),
    "a function": ((C,), (C, C), lambda x, w: tf.function(tf.matmul, autograph=False)(x, w)),
    "a gradient of its own": ((C,), (C, C), _doubled),
    "a convolution of channels first": (
        (C, 5, 5), (C,), lambda x, w: tf.nn.bias_add(x, w, data_format="NCHW")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_whatever_has_no_rule_says_so(name):
    read, weight, call = REFUSED[name]
    x, w = draw((5, *read), weight)
    compiled = by_rules(lambda v, e: call(e[0], v[0]), [w], [x])
    with pytest.raises(NotCoveredError, match=r"\w"):
        compiled.get_concrete_function()


def test_layers_with_loops_have_no_rule():
    with double_precision():
        layer = layers.LSTM(D)
        x = draw((5, T, C))[0]
        with pytest.raises(NotCoveredError, match="While"):
            check_layer(layer, x)
