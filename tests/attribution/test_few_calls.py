"""A small task takes a call for each gradient; the answer is that of the routes of larger tasks."""

from collections.abc import Sequence

import keras
import numpy as np
import pytest

import explaind_tf as xtf
from explaind_tf.sweeps import choose
from tests.helpers import X, batches, dense_model, fit

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["calls", "shares"], name="run")
def _run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> xtf.Run:
    normalization = [keras.layers.BatchNormalization()] if request.param == "shares" else []
    model = dense_model(keras.layers.Dense(3), *normalization, keras.layers.ReLU(), keras.layers.Dense(2))
    model.compile(xtf.PathAdamW(0.01, epsilon=1e-3), loss="mse", run_eagerly=True)
    logger = xtf.PathLogger(tmp_path_factory.mktemp("few") / "run", verbose=False)
    fit(model, logger.tap(batches()), logger)
    return xtf.open_run(logger.run_dir)


@pytest.mark.parametrize(
    "axes", [("sample", "step"), ("layer",), ("sample", "layer", "step"), ("sample", "parameter")]
)
def test_few_calls_give_the_answer_of_many_at_once(
    run: xtf.Run, monkeypatch: pytest.MonkeyPatch, axes: Sequence[str]
):
    monkeypatch.setattr(choose, "few_calls", lambda _: 100)
    few = run.attribute(X[:2], axes=axes, progress=False)
    few.explaind.check()
    assert "sample" not in axes or "(calls)" in few.attrs["method"] or "(shares)" in few.attrs["method"]
    monkeypatch.setattr(choose, "few_calls", lambda _: 0)
    many = run.attribute(X[:2], axes=axes, progress=False)
    scale = float(many["movement"].max())
    for name in many.data_vars:
        np.testing.assert_allclose(few[name], many[name], rtol=0, atol=1e-5 * scale, err_msg=str(name))
