"""The experiments' models: sizes, causality, normalisation, round trips, and that they train."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from explaind_tf.models import (
    CausalSelfAttention,
    ModularTransformer,
    PositionEmbedding,
    ResNet9,
)

pytestmark = pytest.mark.slow

SMALL_TRANSFORMER = {"p": 11, "d_model": 8, "num_heads": 2, "d_mlp": 16}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    keras.utils.set_random_seed(0)


def trainable_count(model: keras.Model) -> int:
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def images(n: int, *, side: int = 16, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).random((n, side, side, channels), dtype=np.float32)


def tokens(n: int, *, p: int = 11) -> np.ndarray:
    ab = np.random.default_rng(0).integers(p, size=(n, 2))
    return np.stack([ab[:, 0], np.full(n, p), ab[:, 1], np.full(n, p + 1)], axis=1).astype("int32")


class TestResNet9:
    def test_has_the_weights_of_the_paper(self):
        assert ResNet9(2).count_params() == 2_271_168

    @pytest.mark.parametrize(("width", "count"), [(0.5, 568_288), (0.25, 142_320)])
    def test_width_scales_the_channels(self, width, count):
        model = ResNet9(2, width=width)
        assert model.count_params() == count
        assert model.get_layer("conv3").filters == 256 * width

    def test_width_leaves_a_channel(self):
        assert ResNet9(2, width=1e-3).get_layer("conv1").filters == 1

    def test_batch_norm_follows_each_convolution(self):
        plain, normed = ResNet9(2, width=0.1), ResNet9(2, width=0.1, batch_norm=True)
        convs = [layer for layer in plain.layers if isinstance(layer, keras.layers.Conv2D)]
        assert len(convs) == 8
        assert not plain.non_trainable_variables
        for conv in convs:
            assert isinstance(normed.get_layer(f"{conv.name}_bn"), keras.layers.BatchNormalization)
        # gamma and beta are trained, the moving mean and variance are not.
        channels = sum(conv.filters for conv in convs)
        assert trainable_count(normed) == trainable_count(plain) + 2 * channels
        assert len(normed.non_trainable_variables) == 2 * len(convs)

    @pytest.mark.parametrize("shape", [(32, 32, 3), (16, 20, 1), (11, 11, 3)])
    def test_returns_logits(self, shape):
        model = ResNet9(5, input_shape=shape, width=0.05)
        y = model(np.ones((2, *shape), np.float32))
        assert y.shape == (2, 5)
        assert y.dtype == "float32"
        # No softmax: the outputs of an input do not sum to one.
        assert not np.allclose(np.sum(y, axis=-1), 1)

    def test_logits_are_linear_in_the_last_layer(self):
        model = ResNet9(3, input_shape=(16, 16, 3), width=0.1)
        x = images(2)
        before = np.asarray(model(x))
        dense = model.get_layer("logits")
        dense.set_weights([2 * w for w in dense.get_weights()])
        np.testing.assert_allclose(model(x), 2 * before, rtol=1e-5)

    # The demo trains both models of the paper each time that .ci/run is called.
    @pytest.mark.nightly
    @pytest.mark.parametrize("batch_norm", [False, True])
    def test_trains(self, batch_norm):
        model = ResNet9(2, input_shape=(16, 16, 3), width=0.1, batch_norm=batch_norm)
        x, y = images(32), np.arange(32) % 2
        # The second class is brighter in one corner.
        x[y == 1, :8, :8] += 1
        losses = fit_losses(model, x, y, steps=15)
        assert np.isfinite(losses).all()
        assert losses[-1] < 0.7 * losses[0]

    def test_is_stable_without_batch_norm_at_full_width(self):
        model = ResNet9(2)
        logits = np.asarray(model(images(8, side=32)))
        # A fresh network is unsure: its loss is near log 2 and far from a saturated softmax.
        assert np.abs(logits).max() < 3

    @pytest.mark.parametrize("batch_norm", [False, True])
    def test_config_round_trip(self, batch_norm):
        model = ResNet9(2, input_shape=(16, 16, 3), width=0.1, batch_norm=batch_norm)
        assert_same_after_round_trip(model, images(2))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"input_shape": (8, 8, 1)}, r"at least \(11, 11, 1\).*\(8, 8, 1\)"),
            ({"input_shape": (32, 10, 3)}, r"at least \(11, 11, 1\)"),
            ({"input_shape": (32, 32)}, "height, width, channels"),
            ({"input_shape": (None, None, 3)}, "all known"),
            ({"width": 0}, "width=0"),
            ({"num_classes": 0}, "num_classes=0"),
        ],
    )
    def test_refuses(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            ResNet9(**{"num_classes": 2, **arguments})


class TestModularTransformer:
    def test_weight_count(self):
        model = ModularTransformer()
        assert model.count_params() == 96_896
        assert trainable_count(model) == 96_896

    def test_weight_names(self):
        assert [v.path for v in ModularTransformer().weights] == [
            "token_embedding/embeddings",
            "position_embedding/positions",
            "attention/query",
            "attention/key",
            "attention/value",
            "attention/output",
            "mlp_in/kernel",
            "mlp_out/kernel",
            "unembedding/kernel",
        ]

    def test_returns_log_probabilities(self):
        y = ModularTransformer()(tokens(6, p=113))
        assert y.shape == (6, 115)
        # 115 float32 terms, each rounded to 6e-8.
        np.testing.assert_allclose(np.exp(y).sum(axis=-1), 1, atol=1e-5)

    def test_equals_a_loop_over_the_weights(self):
        model = ModularTransformer(**SMALL_TRANSFORMER)
        x = tokens(5)
        expected = np.stack([transformer_oracle(model, row, num_heads=2) for row in x])
        # float32 against float64, sums of up to 16 terms of order one.
        np.testing.assert_allclose(model(x), expected, atol=1e-5)

    def test_every_token_and_position_matters(self):
        model = ModularTransformer(**SMALL_TRANSFORMER)
        x = np.array([[1, 11, 2, 12]], np.int32)
        for changed in ([3, 11, 2, 12], [1, 11, 3, 12], [2, 11, 1, 12]):
            assert not np.allclose(model(x), model(np.array([changed], np.int32)), atol=1e-4)

    def test_dropout_acts_in_training_only(self):
        plain = ModularTransformer(**SMALL_TRANSFORMER)
        dropped = ModularTransformer(**SMALL_TRANSFORMER, dropout=0.5)
        dropped.set_weights(plain.get_weights())
        x = tokens(3)
        assert not plain.non_trainable_variables
        np.testing.assert_array_equal(plain(x), dropped(x))
        assert not np.allclose(dropped(x, training=True), dropped(x))

    # The experiments with Grokking train one every time.
    @pytest.mark.nightly
    def test_trains(self):
        x = tokens(64)
        y = (x[:, 0] + x[:, 2]) % 11
        losses = fit_losses(ModularTransformer(**SMALL_TRANSFORMER), x, y, steps=60)
        assert losses[-1] < 0.7 * losses[0]

    def test_config_round_trip(self):
        assert_same_after_round_trip(ModularTransformer(**SMALL_TRANSFORMER), tokens(3))

    # Keras 3.15 copies variables to NumPy 2 in a way that the latter deprecates.
    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
    def test_saves_and_loads(self, tmp_path):
        model = ModularTransformer(**SMALL_TRANSFORMER, dropout=0.1)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(model(tokens(3)), loaded(tokens(3)))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"num_heads": 3}, "d_model=64, num_heads=3"),
            ({"p": 1}, "p=1"),
            ({"d_mlp": 0}, "d_mlp=0"),
            ({"dropout": 1.0}, "dropout=1.0"),
        ],
    )
    def test_refuses(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            ModularTransformer(**arguments)


class TestCausalSelfAttention:
    def test_later_positions_leave_earlier_ones_alone(self):
        attention = CausalSelfAttention(2)
        x = np.random.default_rng(0).normal(size=(2, 5, 8)).astype("float32")
        before = np.asarray(attention(x))
        for t in range(5):
            changed = x.copy()
            changed[:, t] += 1
            after = np.asarray(attention(changed))
            # Masked scores have weight exp(-3e4) = 0 exactly, so earlier outputs are equal to the bit.
            np.testing.assert_array_equal(after[:, :t], before[:, :t])
            assert (np.abs(after[:, t:] - before[:, t:]).max(axis=(0, 2)) > 1e-4).all()

    def test_equals_a_loop(self):
        attention = CausalSelfAttention(4, dtype="float64")
        x = np.random.default_rng(0).normal(size=(3, 5, 8))
        y = attention(x)
        expected = np.stack([attention_oracle(row, attention.get_weights(), 4) for row in x])
        # float64 throughout, sums of at most 8 terms of order one.
        np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-12)

    def test_first_position_sees_itself_alone(self):
        attention = CausalSelfAttention(2, dtype="float64")
        x = np.random.default_rng(0).normal(size=(2, 3, 4))
        y = np.asarray(attention(x))
        _, _, value, output = attention.get_weights()
        np.testing.assert_allclose(y[:, 0], x[:, 0] @ value @ output, rtol=1e-12)

    def test_weights_differ(self):
        attention = CausalSelfAttention(2)
        attention.build((None, 3, 8))
        query, *others = attention.get_weights()
        assert not any(np.allclose(query, other) for other in others)

    def test_vectorised_jacobian_equals_the_loop(self):
        # A broadcasting matmul in here would corrupt the heap (TF 2.20 and 2.21, oneDNN, CPU).
        attention = CausalSelfAttention(2)
        x = tf.constant(np.random.default_rng(0).normal(size=(2, 3, 4)), tf.float32)
        attention.build(x.shape)

        @tf.function
        def jacobian(use_pfor: bool) -> list[tf.Tensor]:
            with tf.GradientTape() as tape:
                y = attention(x)
            weights = [v.value for v in attention.trainable_variables]
            return tape.jacobian(y, weights, experimental_use_pfor=use_pfor)

        for fast, slow in zip(jacobian(True), jacobian(False), strict=True):
            np.testing.assert_allclose(fast, slow, atol=1e-6)

    def test_config_round_trip(self):
        layer = CausalSelfAttention(4, name="heads")
        clone = CausalSelfAttention.from_config(layer.get_config())
        assert (clone.num_heads, clone.name) == (4, "heads")
        registered = keras.saving.get_registered_name(CausalSelfAttention)
        assert registered == "explaind_tf>CausalSelfAttention"

    @pytest.mark.parametrize("shape", [(None, 8), (None, None, 8), (None, 3, None)])
    @pytest.mark.parametrize("layer", [CausalSelfAttention(2), PositionEmbedding()])
    def test_refuses_unknown_sequences(self, layer, shape):
        with pytest.raises(ValueError, match=r"\(batch, seq_len, d_model\)"):
            layer.build(shape)

    def test_refuses_heads_that_do_not_divide(self):
        with pytest.raises(ValueError, match="d_model=8, num_heads=3"):
            CausalSelfAttention(3).build((None, 4, 8))
        with pytest.raises(ValueError, match="num_heads=0"):
            CausalSelfAttention(0)


def test_position_embedding_adds_a_vector_per_position():
    layer = PositionEmbedding()
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    y = np.asarray(layer(x))
    np.testing.assert_array_equal(y, x + layer.get_weights()[0])


def fit_losses(model: keras.Model, x: np.ndarray, y: np.ndarray, *, steps: int) -> np.ndarray:
    """Return the losses of full-batch AdamW, ten times as fast as in the experiments."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(1e-2), loss)
    history = model.fit(x, y, batch_size=len(x), epochs=steps, shuffle=False, verbose=0)
    return np.array(history.history["loss"])


def assert_same_after_round_trip(model: keras.Model, x: np.ndarray) -> None:
    rebuilt = keras.Model.from_config(model.get_config())
    cloned = keras.models.clone_model(model)
    for copy in (rebuilt, cloned):
        assert [v.path for v in copy.weights] == [v.path for v in model.weights]
        copy.set_weights(model.get_weights())
        np.testing.assert_array_equal(copy(x), model(x))


def attention_oracle(x: np.ndarray, weights: list[np.ndarray], num_heads: int) -> np.ndarray:
    """Attend over one sequence ``(T, D)`` in loops over heads and positions."""
    query, key, value, output = weights
    d_head = x.shape[1] // num_heads
    y = np.zeros_like(x)
    for h in range(num_heads):
        head = slice(h * d_head, (h + 1) * d_head)
        for t in range(len(x)):
            q, keys = x[t] @ query[:, head], x[: t + 1] @ key[:, head]
            scores = [q @ k / np.sqrt(d_head) for k in keys]
            odds = np.exp(np.array(scores) - max(scores))
            seen = sum(w * (x[s] @ value[:, head]) for s, w in enumerate(odds / odds.sum()))
            y[t] += seen @ output[head]
    return y


def transformer_oracle(model: keras.Model, row: np.ndarray, num_heads: int) -> np.ndarray:
    """Return the log-probabilities of one sequence, in float64."""
    embeddings, positions, *attention, mlp_in, mlp_out, unembedding = (
        w.astype(np.float64) for w in model.get_weights()
    )
    x = embeddings[row] + positions
    x = (x + attention_oracle(x, attention, num_heads))[-1]
    x = x + np.maximum(x @ mlp_in, 0) @ mlp_out
    logits = x @ unembedding
    return logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
