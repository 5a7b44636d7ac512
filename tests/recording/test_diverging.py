"""A training that ends in NaN: training goes on as without a logger, and the run ends with the last finite step."""

import gc
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from explaind_tf import RefusedError, RunFormatError
from explaind_tf.cli.run_facts import run_facts
from explaind_tf.cli.tables import run_table
from explaind_tf.runs.format.divergence import Divergence
from tests.helpers import X, Y, batches, dense_model, fit, flat, flat_theta
from tests.nightly import sweep
from tests.recording.fits import compiled

BATCHES = 3  # of an epoch: 4 + 4 + 2 samples


def with_nan(*, x_row: int | None = None, y_row: int | None = None) -> tf.data.Dataset:
    x, y = X.copy(), Y.copy()
    if x_row is not None:
        x[x_row, 1] = np.nan
    if y_row is not None:
        y[y_row, 0] = np.inf
    return batches(x, y)


class Sets(keras.callbacks.Callback):
    """Sets the kernel after a step."""

    def __init__(self, value: float, step: int) -> None:
        super().__init__()
        self._value, self._step, self._taken = value, step, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._taken += 1
        if self._taken == self._step:
            kernel = self.model.trainable_variables[0]
            kernel.assign(np.full(kernel.shape, self._value))


def _root(y: Any, p: Any) -> Any:
    """Return a loss that is finite where the prediction is 0, but its gradient is not."""
    return keras.ops.mean(keras.ops.sqrt(keras.ops.abs(p)), axis=-1) * keras.ops.abs(y[:, 0])


def _logarithm(y: Any, p: Any) -> Any:
    """Return a loss that is infinite where the prediction is 0."""
    return keras.ops.mean(keras.ops.log(keras.ops.abs(p)), axis=-1) * keras.ops.abs(y[:, 0])


def _without_bias(loss: Any) -> keras.Model:
    model = dense_model(keras.layers.Dense(2, use_bias=False))
    model.compile(xtf.PathAdamW(0.01), loss=loss)
    return model


def _overflowing() -> keras.Model:
    """Return a model whose learning rate leads beyond float32 in step 2, with finite losses before."""
    model = dense_model()
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([1, 2], [1e-2, 1e-2, 3e38])
    model.compile(xtf.PathSGD(rate), loss=lambda y, p: keras.ops.mean(1e3 * p * y, axis=-1))
    return model


def _zero_inputs() -> tf.data.Dataset:
    x = X.copy()
    x[9] = 0
    return batches(x, Y)


def _by_cause() -> keras.Model:
    """Return a model whose loss is not known by sample."""
    model = dense_model()
    model.compile(xtf.PathAdamW(0.01), loss=lambda y, p: keras.ops.mean((y - p) ** 2))
    return model


def _without_law() -> keras.Model:
    model = dense_model()
    model.compile(keras.optimizers.Adam(0.01), loss="mse")
    return model


def _in_one_execution() -> keras.Model:
    model = dense_model()
    model.compile(xtf.PathAdamW(0.01), loss="mse", steps_per_execution=3)
    return model


@dataclass(frozen=True)
class Case:
    model: Callable[[], keras.Model]
    dataset: Callable[[], tf.data.Dataset]
    step: int
    began_in: str
    callbacks: Callable[[], list[keras.callbacks.Callback]] = list
    every: int = 1
    require: Any = None


LAST = {"x_row": 9}
ONE_INPUT = "the inputs of sample 1 of the batch"
SET = "a change of the weights between steps.*"
BOTH = "the weights '.*' and 1 more of 2 variables"
TWO = "the targets of 2 samples of the batch, the first of them sample 2 of the batch"
CASES = {
    "inputs": Case(compiled, lambda: with_nan(x_row=9), 2, ONE_INPUT),
    "targets of two": Case(
        compiled, lambda: batches(X, np.where(np.arange(10)[:, None] > 5, np.inf, Y)), 1, TWO
    ),
    "keyframes": Case(_in_one_execution, lambda: with_nan(x_row=9), 2, ONE_INPUT, every=5),
    "one execution": Case(_in_one_execution, lambda: with_nan(x_row=5), 1, ONE_INPUT),
    "loss": Case(lambda: _without_bias(_logarithm), _zero_inputs, 2, "the loss of sample 1 of the batch"),
    "gradient": Case(lambda: _without_bias(_root), _zero_inputs, 2, "the gradient of '.*kernel'"),
    "weights": Case(_overflowing, batches, 3, BOTH),
    "set between steps": Case(compiled, batches, 2, SET, lambda: [Sets(np.nan, 2)]),
    "set after the last": Case(compiled, batches, 6, SET, lambda: [Sets(np.nan, 6)]),
    "by cause": Case(_by_cause, lambda: with_nan(x_row=9), 2, BOTH, require="cause"),
    "path": Case(_without_law, lambda: with_nan(x_row=9), 2, BOTH),
}


@pytest.mark.parametrize("name", sweep(CASES, core=("inputs", "loss", "gradient", "set between steps")))
def test_a_run_ends_before_the_step_and_training_goes_on(run_dir: Path, name: str):
    case = CASES[name]
    model, plain = case.model(), case.model()
    plain.set_weights(model.get_weights())
    logger = xtf.PathLogger(run_dir, every=case.every, require=case.require, verbose=False)
    # The logger comes first, so it sees what a callback sets before the next step.
    with pytest.warns(
        RuntimeWarning, match=f"infinite in step {case.step}, which began in {case.began_in}. From"
    ) as caught:
        fit(model, case.dataset(), logger, *case.callbacks(), epochs=2)
    assert len([w for w in caught if w.category is RuntimeWarning and "began in" in str(w.message)]) == 1
    fit(plain, case.dataset(), *case.callbacks(), epochs=2)
    assert int(model.optimizer.iterations) == 2 * BATCHES
    np.testing.assert_array_equal(flat(model.trainable_variables), flat(plain.trainable_variables))
    assert not np.isfinite(flat(model.trainable_variables)).all()

    with pytest.warns(UserWarning, match=f"ends before its training did: .*in step {case.step}, which began"):
        run = xtf.open_run(run_dir)
    assert run.is_complete and len(run.steps) == case.step
    assert run.manifest.divergence.step == case.step
    assert all(np.isfinite(flat_theta(run, step)).all() for step in range(case.step + 1))
    run.verify(progress=False)
    ledger = run.attribute(X[:2], xtf.measurements.outputs(), progress=False)
    ledger.explaind.check()


def test_the_shell_says_where_it_began(run_dir: Path, capsys):
    with pytest.warns(RuntimeWarning, match="which began in the inputs"):
        fit(compiled(), with_nan(x_row=9), xtf.PathLogger(run_dir))
    assert "wrote 2 steps" in capsys.readouterr().out
    with pytest.warns(UserWarning, match="ends before"):
        facts = run_facts(xtf.open_run(run_dir))
    assert facts["diverged"] == {"step": 2, "began_in": "the inputs of sample 1 of the batch"}
    rows = dict(zip(*(column._cells for column in run_table(facts).columns), strict=True))
    assert rows["diverged"] == "in step 2, which began in the inputs of sample 1 of the batch"


def test_ids_name_the_sample(run_dir: Path):
    logger = xtf.PathLogger(run_dir, verbose=False)
    dataset = tf.data.Dataset.zip(
        tf.data.Dataset.from_tensor_slices([f"s{i}" for i in range(10)]).batch(4), with_nan(y_row=5)
    )
    with pytest.warns(RuntimeWarning, match=r"step 1, .*the targets of sample 1 of the batch \(id 's5'\)"):
        fit(compiled(), logger.tap(dataset), logger)


def test_a_first_step_is_refused_and_nothing_is_written(run_dir: Path):
    with pytest.raises(RefusedError, match=r"infinite in step 0, .*inputs of sample 1.*nothing was written"):
        fit(compiled(), with_nan(x_row=1), xtf.PathLogger(run_dir, verbose=False))
    assert not run_dir.exists()


def test_a_run_goes_on_from_its_last_finite_step(run_dir: Path):
    with pytest.warns(RuntimeWarning, match="resume=True"):
        fit(compiled(), with_nan(x_row=9), xtf.PathLogger(run_dir, verbose=False))
    other = dense_model()
    other.compile(xtf.PathAdamW(0.001), loss="mse", run_eagerly=True)  # a lower learning rate
    fit(other, batches(), xtf.PathLogger(run_dir, resume=True, verbose=False))
    run = xtf.open_run(run_dir)  # without a warning
    assert len(run.steps) == 5 and run.manifest.divergence is None
    run.verify(progress=False)


def test_a_resumed_run_may_diverge_at_once(run_dir: Path):
    fit(compiled(), batches(), xtf.PathLogger(run_dir, verbose=False))
    with pytest.warns(RuntimeWarning, match="in step 3, which began in the inputs of sample 0"):
        fit(compiled(), with_nan(x_row=0), xtf.PathLogger(run_dir, resume=True, verbose=False))
    with pytest.warns(UserWarning, match="ends before"):
        run = xtf.open_run(run_dir)
    assert run.is_complete and len(run.steps) == 3
    run.verify(progress=False)


def test_a_further_fit_with_the_logger_warns_that_it_is_not_recorded(run_dir: Path):
    model, logger = compiled(), xtf.PathLogger(run_dir, verbose=False)
    with pytest.warns(RuntimeWarning, match="step 2"):
        fit(model, with_nan(x_row=9), logger)
    before = (run_dir / "manifest.json").read_bytes()
    with pytest.warns(UserWarning, match=r"resume=True\).*continues without being recorded"):
        fit(model, batches(), logger)
    assert (run_dir / "manifest.json").read_bytes() == before


def test_files_of_a_diverged_recording_are_closed(run_dir: Path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, logger = compiled(), xtf.PathLogger(run_dir, verbose=False)
        model.fit(with_nan(x_row=9), callbacks=[logger], verbose=0, shuffle=False)
        del model, logger
        gc.collect()
    found = [warning for warning in caught if warning.category is ResourceWarning]
    assert [str(warning.message) for warning in found if str(run_dir) in str(warning.message)] == []


@pytest.mark.parametrize(
    "found", [{"step": -1, "began_in": "x"}, {"step": 1}, {"step": 1, "began_in": 2}, 3, []]
)
def test_a_manifest_with_another_entry_is_refused(found):
    with pytest.raises(RunFormatError, match="diverged must have a step"):
        Divergence.in_environment({"diverged": found})


def test_an_entry_is_read_as_it_was_written():
    found = Divergence(3, "the loss")
    assert Divergence.in_environment(json.loads(json.dumps({"diverged": vars(found)}))) == found
    assert Divergence.in_environment({}) is None
