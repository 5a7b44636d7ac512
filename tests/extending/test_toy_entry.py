"""A new entry of the ledger, added as docs/architecture.md says: a row in the table of terms, and a change."""

import keras
import numpy as np
import pytest

import explaind_tf as xtf
from explaind_tf import terms
from explaind_tf.constants import LAYER, PARAMETER, STEP
from explaind_tf.replay import changes
from explaind_tf.report import figures
from explaind_tf.runs.steps import Transition
from explaind_tf.terms import Term
from tests.helpers import X, batches, dense_model, fit

pytestmark = pytest.mark.slow

SHRINKING = Term(
    name="shrinking",
    axes=frozenset((LAYER, PARAMETER, STEP)),
    label="shrinking by a callback",
    colour="#123456",
    description="change by a callback that shrinks all weights",
    meaning="a callback that makes all weights smaller after each step",
)
SHARE = np.float32(0.01)


class Shrink(keras.callbacks.Callback):
    """Makes all weights one per cent smaller after each step."""

    def on_train_batch_end(self, batch, logs=None):
        for variable in self.model.trainable_variables:
            variable.assign(variable - SHARE * variable)


def shrinking(transition: Transition) -> np.ndarray:
    return -SHARE * transition.theta_stepped


@pytest.fixture
def is_registered(monkeypatch):
    monkeypatch.setattr(terms, "_TABLE", dict(terms._TABLE))
    monkeypatch.setattr(changes, "_CHANGES", dict(changes._CHANGES))
    terms.register(SHRINKING)
    changes.register(SHRINKING.name, shrinking)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("toy") / "run"
    model = dense_model()
    model.compile(xtf.PathSGD(0.05, momentum=0.9), "mse")
    logger = xtf.PathLogger(run_dir, verbose=False)
    fit(model, logger.tap(batches()), logger, Shrink(), epochs=2)
    return run_dir


def test_without_the_entry_the_change_is_external(run_dir):
    ledger = xtf.open_run(run_dir).attribute(X[:2])
    ledger.explaind.check()
    assert SHRINKING.name not in ledger
    assert float(abs(ledger["external"]).max()) > 1e-3


@pytest.mark.usefixtures("is_registered")
def test_the_entry_takes_its_part_of_the_change(run_dir):
    run = xtf.open_run(run_dir)
    ledger = run.attribute(X[:2], axes=("layer", "step"))
    ledger.explaind.check()
    assert run.terms == terms.terms_of("recorded")
    assert set(ledger.explaind.terms) == set(run.terms) - {"rounding", "precision", "jumps"}
    assert ledger[SHRINKING.name].dims == ("input", "output", "layer", "step")
    assert ledger[SHRINKING.name].attrs["long_name"] == SHRINKING.description
    moved = abs(ledger.explaind.total(SHRINKING.name))
    # The change by the callback differs from the entry only by the rounding of float32.
    assert float(abs(ledger.explaind.total("external")).max()) < 1e-4 * float(moved.max())
    tree = run.attribute(X[:2], axes=("parameter",))
    np.testing.assert_allclose(
        tree.explaind.total(SHRINKING.name), ledger.explaind.total(SHRINKING.name), rtol=1e-3, atol=1e-6
    )


@pytest.mark.usefixtures("is_registered")
def test_figures_show_it_without_another_line(run_dir):
    ledger = xtf.open_run(run_dir).attribute(X[:2], axes=("layer",))
    (bar,) = [trace for trace in figures.layers(ledger).data if trace.name == SHRINKING.label]
    assert bar.marker.color == SHRINKING.colour
    assert any(str(label).startswith(SHRINKING.label) for label in figures.balance(ledger).data[0].y)


@pytest.mark.usefixtures("is_registered")
def test_names_that_are_taken_are_refused():
    with pytest.raises(ValueError, match="shrinking"):
        terms.register(SHRINKING)
    with pytest.raises(ValueError, match="shrinking"):
        changes.register(SHRINKING.name, shrinking)
