"""What cannot be recorded by sample is recorded by cause or as a path: the axis is refused, and not the run."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from explaind_tf import RefusedError
from tests.contract.level_cases import CASES, CROSSENTROPY, FEATURES, Adversaries, Case, functional, layers
from tests.helpers import LABELS, X, Y, initialised
from tests.nightly import sweep


def trained(case: Case, *logger: Any, **options: Any) -> keras.Model:
    """Train two epochs of three steps. `logger` is a run directory, or nothing."""
    keras.utils.set_random_seed(5)
    model = case.model()
    if case.part is None:
        model.compile(case.optimizer(), case.loss)
    else:
        model.compile(case.optimizer())
        options["model"] = getattr(model, case.part)
    callbacks = [xtf.PathLogger(run_dir, verbose=False, **options) for run_dir in logger]
    model.fit(*case.data, batch_size=4, epochs=2, verbose=0, callbacks=callbacks)
    return model


@pytest.mark.parametrize(
    "name", sweep(CASES, core=("weights set in train_step", "gradients clipped in train_step", "GAN"))
)
def test_it_is_recorded_at_its_level_and_training_is_that_of_keras(run_dir: Path, name: str):
    case = CASES[name]
    model, plain = trained(case, run_dir, require=case.level), trained(case)
    for ours, theirs in zip(model.variables, plain.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    run = xtf.open_run(run_dir)
    assert run.level == case.level and len(run.steps) == 6
    predicts = model if case.part is None else getattr(model, case.part)
    inputs = X[:3] if case.part is None else X[:3, :2]
    ledger = run.attribute(inputs, axes=("step", "layer"), progress=False)
    ledger.explaind.check()
    np.testing.assert_allclose(ledger.final, predicts(inputs), rtol=1e-4, atol=1e-6)
    assert ledger.attrs["level"] == case.level
    assert len(ledger.attrs["unexplained_steps"]) == case.unexplained
    if case.level == "sample":
        run.attribute(inputs, axes=("sample",), progress=False).explaind.check()
    else:
        with pytest.raises(RefusedError, match=f"(?s)no 'sample' axis.*level '{case.level}'.*{case.says}"):
            run.attribute(inputs, axes=("sample",), progress=False)


@pytest.mark.parametrize("name", ["gradients clipped in train_step", "weight of a loss in a tf.Variable"])
def test_what_is_required_and_cannot_be_known_is_refused_with_the_way_on(run_dir: Path, name: str):
    case = CASES[name]
    with pytest.raises(
        RefusedError, match=rf'(?s){case.says}.*PathLogger\(run_dir, require="{case.level}"\)'
    ):
        trained(case, run_dir)
    assert not run_dir.exists()


def test_samples_are_refused_with_another_optimizer(run_dir: Path):
    with pytest.raises(RefusedError, match=r'compiled with keras.*PathAdamW\(.*require="path"'):
        trained(CASES["an optimizer by name"], run_dir, require="sample")


def test_a_model_that_predicts_nothing_is_refused(run_dir: Path):
    model = Adversaries()
    model.compile([keras.optimizers.Adam(), keras.optimizers.Adam()])
    with pytest.raises(RefusedError, match=r"no call\(\).*PathLogger\(run_dir, model=gan\.generator\)"):
        model.fit(X, verbose=0, callbacks=[xtf.PathLogger(run_dir, verbose=False)])


class TestUnexplainedSteps:
    def test_what_the_law_misses_is_external_and_strict_checks_say_so(self, run_dir: Path):
        trained(CASES["weights set in train_step"], run_dir)
        run = xtf.open_run(run_dir)
        ledger = run.attribute(X[:3], axes=("step",), progress=False)
        assert bool((abs(ledger.external).sum(["input", "output"]) > 0).all())
        ledger.explaind.check()
        with pytest.raises(
            xtf.UnbalancedLedgerError, match=r"law does not explain 6 steps.*0, 1, .*'external'"
        ):
            ledger.explaind.check(strict=True)
        with pytest.raises(xtf.UnbalancedLedgerError, match=r"Step 0 .*train_step of your own.*'external'"):
            run.verify(progress=False)


class TestLoopsOfOnesOwn:
    def loop(self, model: keras.Model, optimizer: Any, logger: xtf.PathLogger, *, gives_data: bool) -> None:
        for start in (0, 4, 8):
            x, y = X[start : start + 4], LABELS[start : start + 4]
            with logger.step(x, y) if gives_data else logger.step():
                with tf.GradientTape() as tape:
                    loss = CROSSENTROPY(y, model(x, training=True))
                weights = model.trainable_variables
                optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))

    def test_with_batches_and_a_compiled_model_samples_are_known(self, run_dir: Path):
        model = initialised(keras.Sequential(layers()))
        model.compile(xtf.PathAdamW(0.02), CROSSENTROPY)
        with xtf.PathLogger(run_dir, model=model, verbose=False) as logger:
            self.loop(model, model.optimizer, logger, gives_data=True)
        run = xtf.open_run(run_dir)
        assert (run.level, len(run.steps), run.is_complete) == ("sample", 3, True)
        run.verify(progress=False)

    def test_without_them_the_path_is(self, run_dir: Path):
        model = initialised(keras.Sequential(layers()))
        with xtf.PathLogger(run_dir, model=model, verbose=False) as logger:
            self.loop(model, keras.optimizers.Nadam(0.02), logger, gives_data=False)
        run = xtf.open_run(run_dir)
        assert (run.level, len(run.steps)) == ("path", 3)
        ledger = run.attribute(X[:2], axes=("layer",), progress=False)
        ledger.explaind.check()
        np.testing.assert_allclose(ledger.final, model(X[:2]), rtol=1e-5)

    def test_after_an_error_the_steps_before_it_are_kept(self, run_dir: Path):
        model = initialised(keras.Sequential(layers()))
        with (
            pytest.raises(ZeroDivisionError),
            xtf.PathLogger(run_dir, model=model, verbose=False) as logger,
        ):
            self.loop(model, keras.optimizers.Nadam(0.02), logger, gives_data=False)
            raise ZeroDivisionError
        with pytest.warns(UserWarning, match="cut short"):
            assert len(xtf.open_run(run_dir).steps) == 3


class TestActorCritic:
    """A policy that learns from episodes in an environment of its own, in a loop as tutorials write it."""

    def model(self) -> keras.Model:
        keras.utils.set_random_seed(3)
        state = keras.Input((FEATURES,))
        common = keras.layers.Dense(5, activation="relu")(state)
        actions = keras.layers.Dense(2, activation="softmax")(common)
        return keras.Model(state, [actions, keras.layers.Dense(1)(common)])

    def episodes(self, model: keras.Model, optimizer: Any, step: Callable[[], Any]) -> None:
        rng = np.random.default_rng(0)
        for _ in range(4):
            state, past, rewards = rng.normal(size=FEATURES).astype("float32"), [], []
            with step():
                with tf.GradientTape() as tape:
                    for _ in range(5):
                        actions, value = model(state[None])
                        action = int(rng.random() > float(actions[0, 0]))
                        past.append((tf.math.log(actions[0, action]), value[0, 0]))
                        state = np.roll(state, 1 - 2 * action)
                        rewards.append(float(state[0]))
                    returns = np.cumsum(rewards[::-1])[::-1]
                    gains = [
                        (probability * tf.stop_gradient(value - gain), (gain - value) ** 2)
                        for (probability, value), gain in zip(past, returns, strict=True)
                    ]
                    loss = tf.add_n([term for pair in gains for term in pair])
                weights = model.trainable_variables
                optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))

    @pytest.mark.parametrize(
        ("level", "optimizer"),
        [("path", lambda: keras.optimizers.Adam(0.05)), ("cause", lambda: xtf.PathAdam(0.05))],
    )
    def test_it_is_recorded(self, run_dir: Path, level: str, optimizer: Callable[[], Any]):
        model, plain = self.model(), self.model()
        model.compile(optimizer())
        with xtf.PathLogger(run_dir, model=model, require=level, verbose=False) as logger:
            self.episodes(model, model.optimizer, logger.step)
        self.episodes(plain, keras.optimizers.Adam(0.05), contextlib.nullcontext)
        for ours, theirs in zip(model.variables, plain.variables, strict=True):
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
        run = xtf.open_run(run_dir)
        assert (run.level, len(run.steps)) == (level, 4)
        ledger = run.attribute(X[:3], axes=("step", "layer"), progress=False)
        ledger.explaind.check()


def test_metrics_within_layers_are_no_part_of_a_prediction(run_dir: Path):
    class Measures(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.metric = keras.metrics.Mean()

        def call(self, x: Any) -> Any:
            self.metric.update_state(x)
            return x

    model = functional(Measures())
    model.compile(xtf.PathAdamW(0.02), "mse")
    model.fit(X, Y, verbose=0, callbacks=[xtf.PathLogger(run_dir, verbose=False)])
    run = xtf.open_run(run_dir)
    assert run.level == "sample"
    run.verify(progress=False)
