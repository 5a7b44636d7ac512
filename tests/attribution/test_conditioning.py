"""Conditioning: which entries rest on weights whose batch gradient nearly cancelled."""

from pathlib import Path

import keras
import numpy as np
import pytest

import explaind_tf as xtf
from explaind_tf.attribution.ranking import warn_of_ranking
from tests.helpers import batches, fit

pytestmark = pytest.mark.filterwarnings("ignore:For . of . inputs the 10 strongest samples:UserWarning")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 2)).astype("float32")
# At weights of zero the gradient of a linear model is −Σ x y. That of the first weight cancels to 1e-6 of its parts.
Y = RNG.normal(size=(16, 1)).astype("float32")
X[:, 0] -= (X[:, 0] @ Y)[0] / (Y[:, 0] @ Y[:, 0]) * Y[:, 0]


def trained(run_dir: Path, optimizer: keras.optimizers.Optimizer, first: np.ndarray = Y) -> xtf.Run:
    """Train in one step, or in two with other targets in the first one."""
    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")]
    )
    model.compile(optimizer, loss="mse", run_eagerly=True)
    logger = xtf.PathLogger(run_dir, verbose=False)
    x, y = (X, Y) if first is Y else (np.concatenate([X, X]), np.concatenate([first, Y]))
    fit(model, logger.tap(batches(x, y, size=16)), logger, epochs=1)
    return xtf.open_run(run_dir)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> xtf.Run:
    return trained(tmp_path_factory.mktemp("conditioning") / "run", xtf.PathAdamW(0.1, epsilon=1e-12))


INPUTS = np.array([[1, 0], [0, 1], [1e-6, 1]], "float32")


def test_the_share_is_that_of_the_cancelled_weight(run):
    with pytest.warns(UserWarning, match="For . of 3 inputs the 10 strongest samples would be others"):
        ledger = run.attribute(INPUTS, axes=("sample",), conditioning=True, progress=False)
    share = ledger.explaind.conditioning()
    assert share.dims == ("input", "output", "sample")
    # The first input sees the cancelled weight alone, the second one the other weight alone.
    np.testing.assert_allclose(share.isel(input=0), 1)
    np.testing.assert_array_equal(share.isel(input=1), 0)
    assert ((share >= 0) & (share <= 1)).all()
    ledger.explaind.check()


def test_all_samples_of_a_cancelled_weight_add_up_to_little(run):
    ledger = run.attribute(INPUTS[:1], axes=("sample",), conditioning=True, progress=False)
    moved = float(np.abs(ledger.data.sum("sample")).max())
    assert float(np.abs(ledger.data).sum()) > 1e4 * moved


@pytest.mark.parametrize("axes", [("sample", "step"), ("sample", "parameter")], ids="-".join)
def test_it_does_not_depend_on_the_axes(run, axes):
    whole = run.attribute(INPUTS, axes=("sample",), conditioning=True, progress=False)
    split = run.attribute(INPUTS, axes=axes, conditioning=True, progress=False)
    found = split["/"].to_dataset() if "parameter" in axes else split
    np.testing.assert_allclose(found.cancelled, whole.cancelled, rtol=1e-5, atol=1e-9)


def test_it_is_stored_with_the_ledger(run, tmp_path):
    stored = run.attribute(
        INPUTS, axes=("sample",), conditioning=True, progress=False, out=tmp_path / "a.zarr"
    )
    np.testing.assert_allclose(stored.explaind.conditioning().isel(input=0), 1)


def test_a_small_gradient_among_larger_ones_is_no_concern(tmp_path):
    # A tiny learning rate leaves the weights at about zero, so the second gradient of the first weight cancels as before.
    run = trained(tmp_path / "run", xtf.PathAdamW(1e-9, epsilon=1e-12), first=X[:, :1])
    ledger = run.attribute(INPUTS[:1], axes=("sample",), conditioning=True, progress=False)
    np.testing.assert_array_equal(ledger.explaind.conditioning(), 0)


def test_epsilon_above_the_rounding_divides_it_by_enough(tmp_path):
    run = trained(tmp_path / "run", xtf.PathAdamW(0.1, epsilon=1e-3))
    ledger = run.attribute(INPUTS[:1], axes=("sample",), conditioning=True, progress=False)
    np.testing.assert_array_equal(ledger.explaind.conditioning(), 0)


def test_an_optimizer_that_divides_by_no_gradients_has_no_such_weights(tmp_path):
    run = trained(tmp_path / "run", xtf.PathSGD(0.1, momentum=0.9))
    ledger = run.attribute(INPUTS[:1], axes=("sample",), conditioning=True, progress=False)
    np.testing.assert_array_equal(ledger.explaind.conditioning(), 0)


def test_it_must_be_asked_for(run):
    ledger = run.attribute(INPUTS, axes=("sample",), progress=False)
    assert "cancelled" not in ledger
    with pytest.raises(
        ValueError, match=r"Ask for it: run\.attribute\(x, axes=\(\"sample\",\), conditioning=True\)"
    ):
        ledger.explaind.conditioning()
    with pytest.raises(ValueError, match='conditioning=True is about the entries of samples: add "sample"'):
        run.attribute(INPUTS, conditioning=True, progress=False)


def test_a_ranking_that_stays_is_not_warned_of(run, recwarn):
    ledger = run.attribute(INPUTS[1:2], axes=("sample",), conditioning=True, progress=False)
    warn_of_ranking(ledger)
    assert not [w for w in recwarn if "strongest samples" in str(w.message)]
