"""Lookups by rules, compared with a loop over the examples."""

import keras
import tensorflow as tf

from tests.kernel.examples import C, D, T, check, check_layer, draw, tokens


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


def test_embedding_layers(float64):
    check_layer(keras.layers.Embedding(C, D), tokens(T))
    check_layer(keras.layers.Embedding(C, D), tokens(T) - 1)  # Keras counts negative ones from the end
