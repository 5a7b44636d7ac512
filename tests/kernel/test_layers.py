"""Keras layers by rules, compared with a loop over the examples."""

import keras
import pytest

from explaind_tf.kernel.operations.uses import NotCoveredError
from tests.helpers import double_precision
from tests.kernel.examples import C, D, T, check_layer, draw, tokens
from tests.nightly import sweep

pytestmark = pytest.mark.slow

layers = keras.layers


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
    # At least as many filters as places: one product of patches instead of one by one.
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


@pytest.mark.parametrize("name", sweep(ON_FEATURES, core=("Dense",)))
def test_layers_on_features(name, float64):
    check_layer(ON_FEATURES[name](), draw((5, C))[0])


@pytest.mark.parametrize("name", sweep(ON_SEQUENCES, core=("MultiHeadAttention",)))
def test_layers_on_sequences(name, float64):
    check_layer(ON_SEQUENCES[name](), draw((5, T, C))[0])


@pytest.mark.parametrize("name", sweep(ON_IMAGES, core=("Conv2D",)))
def test_layers_on_images(name, float64):
    check_layer(ON_IMAGES[name](), draw((5, 5, 4, C))[0])


@pytest.mark.parametrize("name", sweep(ON_VOLUMES))
def test_layers_on_volumes(name, float64):
    check_layer(ON_VOLUMES[name](), draw((5, 3, 4, 3, 2))[0])


def test_a_layer_used_twice_and_its_transpose(float64):
    shared = layers.ReversibleEmbedding(C, D)

    class Twice(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.shared, self.inner = shared, layers.Dense(D, "tanh")

        def call(self, x):
            return self.shared(self.inner(self.inner(self.shared(x))), reverse=True)

    check_layer(Twice(), tokens(T))


def test_layers_with_loops_have_no_rule():
    with double_precision():
        layer = layers.LSTM(D)
        x = draw((5, T, C))[0]
        with pytest.raises(NotCoveredError, match="While"):
            check_layer(layer, x)
