"""The language model: sizes, causality, a float64 loop over its weights, round trips, and that it trains."""

import math

import keras
import numpy as np
import pytest

from explaind_tf.models import LanguageTransformer
from tests.models.test_models import (
    assert_same_after_round_trip,
    attention_oracle,
    fit_losses,
    trainable_count,
)

pytestmark = pytest.mark.slow

SMALL = {"vocabulary": 11, "seq_len": 5, "blocks": 2, "d_model": 8, "num_heads": 2, "d_mlp": 16}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    keras.utils.set_random_seed(0)


def tokens(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(11, size=(n, 5)).astype("int32")


def test_weight_count():
    model = LanguageTransformer()
    assert model.count_params() == trainable_count(model) == 1_256_704


def test_weight_names():
    block = [
        "attention_norm/gamma",
        "attention_norm/beta",
        "attention/query",
        "attention/key",
        "attention/value",
    ]
    block += ["attention/output", "mlp_norm/gamma", "mlp_norm/beta", "mlp_in/kernel", "mlp_out/kernel"]
    assert [v.path for v in LanguageTransformer(**SMALL).weights] == [
        "token_embedding/embeddings",
        "position_embedding/positions",
        *(f"block0_{name}" for name in block),
        *(f"block1_{name}" for name in block),
        "final_norm/gamma",
        "final_norm/beta",
        "unembedding/kernel",
    ]


def test_equals_a_loop_over_the_weights():
    model = LanguageTransformer(**SMALL)
    # With scales of 1 and offsets of 0, an error in the norms would not show.
    rng = np.random.default_rng(1)
    model.set_weights([w + 0.1 * rng.normal(size=w.shape) for w in model.get_weights()])
    expected = np.stack([oracle(model, row) for row in tokens(3)])
    # float32 against float64, sums of up to 16 terms of order one in four sublayers.
    np.testing.assert_allclose(model(tokens(3)), expected, atol=1e-4)


def test_later_tokens_leave_earlier_predictions_alone():
    model = LanguageTransformer(**SMALL)
    before = np.asarray(model(tokens(2)))
    for t in range(5):
        changed = tokens(2)
        changed[:, t] = (changed[:, t] + 1) % 11
        moved = np.abs(np.asarray(model(changed)) - before).max(axis=(0, 2))
        assert not moved[:t].any()
        assert (moved[t:] > 1e-4).all()


@pytest.mark.nightly
def test_trains():
    x = (np.arange(64)[:, None] + np.arange(5)).astype("int32") % 11
    losses = fit_losses(LanguageTransformer(**SMALL | {"blocks": 1}), x, (x + 1) % 11, steps=30)
    # A model that has learned nothing has log 11.
    assert losses[0] > 0.8 * math.log(11)
    assert losses[-1] < 0.3 * losses[0]


def test_config_round_trip():
    assert_same_after_round_trip(LanguageTransformer(**SMALL), tokens(3))


# Keras 3.15 copies variables to NumPy 2 in a way that the latter deprecates.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_saves_and_loads(tmp_path):
    model = LanguageTransformer(**SMALL)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model(tokens(3)), loaded(tokens(3)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 3}, "d_model=8, num_heads=3"),
        ({"blocks": 0}, "blocks=0"),
        ({"vocabulary": 0}, "vocabulary=0"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        LanguageTransformer(**SMALL | arguments)


def oracle(model: keras.Model, row: np.ndarray) -> np.ndarray:
    """Return the logits of one sequence, in float64."""
    weights = (w.astype(np.float64) for w in model.get_weights())
    x = next(weights)[row] + next(weights)
    for _ in range(SMALL["blocks"]):
        normalised = norm(x, next(weights), next(weights))
        x = x + attention_oracle(normalised, [next(weights) for _ in range(4)], SMALL["num_heads"])
        hidden = norm(x, next(weights), next(weights)) @ next(weights)
        gelu = np.vectorize(lambda h: h * (1 + math.erf(h / math.sqrt(2))) / 2)
        x = x + gelu(hidden) @ next(weights)
    return norm(x, next(weights), next(weights)) @ next(weights)


def norm(x: np.ndarray, scale: np.ndarray, offset: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * scale + offset
