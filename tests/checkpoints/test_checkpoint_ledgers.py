"""Ledgers of checkpoints saved by plain Keras, compared with the predictions of the same models."""

import math

import numpy as np
import pytest

import explaind_tf as xtf
from explaind_tf import constants as names
from explaind_tf import terms
from explaind_tf.analysis.fidelity import fidelity
from explaind_tf.terms import terms_of
from tests.checkpoints.saving import EPOCHS, build, open_form
from tests.helpers import X

# What Keras itself raises when it saves with NumPy 2.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


@pytest.mark.parametrize("form", ["weights", "keras"])
def test_the_ledger_balances_and_is_what_the_model_itself_predicted(saved, form):
    run, predictions = open_form(saved, form), saved[1]
    ledger = run.attribute(X, axes=("layer", "step"))
    ledger.explaind.check()
    assert ledger.explaind.terms == ("weights", "state", "residual")
    assert not set(terms_of("recorded")) - set(terms_of("checkpoints")) & set(ledger)
    # In float32, predict() uses other batches and another graph.
    np.testing.assert_allclose(ledger.initial, predictions[0], atol=1e-5)
    np.testing.assert_allclose(ledger.final, predictions[-1], atol=1e-5)
    moved = np.moveaxis(np.diff(predictions, axis=0), 0, -1)
    explained = ledger.weights.sum("layer") + ledger.state.sum("layer")
    # The tolerance bounds the residual of all steps together. Here it also bounds that of each step.
    np.testing.assert_allclose(explained, moved, atol=1e-3 * float(ledger.movement.max()))
    np.testing.assert_allclose(explained + ledger.residual, moved, atol=2e-5)


def test_entries_are_those_of_an_integral_in_float64(saved, run):
    """Σ over layers and both causes, each by a dense midpoint rule with derivatives by central differences."""
    ledger = run.attribute(X[:2], axes=("layer", "step"), tolerance=1e-4)
    specs = [*run.manifest.variables, *(s for s in run.manifest.state if s.is_floating)]
    points = [_values(run, step) for step in range(EPOCHS)]
    scale = float(ledger.movement.max())
    for step in range(EPOCHS - 1):
        start, end = points[step], points[step + 1]
        for cause in (names.WEIGHTS, names.STATE):
            own = set(run.manifest.variables) if cause == names.WEIGHTS else set(run.manifest.state)
            for layer in run.layers:
                moves = [
                    (b - a) * (spec in own and spec.layer == layer)
                    for spec, a, b in zip(specs, start, end, strict=True)
                ]
                expected = _integral(start, end, moves)
                entry = ledger[cause].sel(layer=layer, step=step)
                np.testing.assert_allclose(entry, expected, atol=2e-4 * scale, err_msg=f"{cause} of {layer}")


def _values(run, step):
    state = zip(run.manifest.state, run.step_store.state(step), strict=True)
    floating = [value for spec, value in state if spec.is_floating]
    return [array.astype(np.float64) for array in (*run.theta(step).values(), *floating)]


def _forward(values):
    """The model of :func:`build` in NumPy."""
    kernel, bias, gamma, beta, inner_kernel, inner_bias, last_kernel, last_bias, mean, variance = values
    x = X[:2].astype(np.float64) @ kernel + bias
    x = x * np.vectorize(lambda v: 0.5 * (1 + math.erf(v / np.sqrt(2))))(x)
    x = gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta
    return np.tanh(x @ inner_kernel + inner_bias) @ last_kernel + last_bias


def _integral(start, end, moves, nodes=200, width=1e-5):
    total = 0.0
    for t in (np.arange(nodes) + 0.5) / nodes:
        at = [a + t * (b - a) for a, b in zip(start, end, strict=True)]
        ahead, behind = ([p + sign * width * d for p, d in zip(at, moves, strict=True)] for sign in (1, -1))
        total = total + (_forward(ahead) - _forward(behind)) / (2 * width)
    return total / nodes


def test_each_cause_and_layer_is_booked_where_it_moved(run):
    ledger = run.attribute(X, axes=("layer", "step"))
    statistics = np.abs(ledger.state).max(["input", "output", "step"])
    assert statistics.where(statistics > 0, drop=True).layer.values.tolist() == ["net/norm"]
    assert float(np.abs(ledger.weights).max(["input", "output", "step"]).min()) > 0


def test_parameters_add_up_to_layers_and_steps_to_the_whole(run):
    whole = run.attribute(X)
    by_layer = run.attribute(X, axes=("layer", "step"))
    tree = run.attribute(X, axes=("parameter", "step"))
    for ledger in (whole, by_layer, tree):
        ledger.explaind.check()
    scale = float(whole.movement.max())
    for layer in run.layers:
        entries = [
            tree[v.path].weights.sum([d for d in tree[v.path].weights.dims if d.startswith("axis_")])
            for v in run.variables
            if v.layer == layer
        ]
        # The same integrals in other orders of float32 operations.
        np.testing.assert_allclose(sum(entries), by_layer.weights.sel(layer=layer), atol=1e-5 * scale)
    for term in whole.explaind.terms:
        for ledger in (by_layer, tree):
            np.testing.assert_allclose(
                ledger.explaind.total(term), whole.explaind.total(term), atol=2e-5 * scale
            )


def test_steps_are_picked_planned_and_streamed_as_those_of_a_recorded_run(run, saved, tmp_path):
    ledger = run.attribute(X, axes=("step",), steps=[1])
    ledger.explaind.check()
    run.attribute(X, xtf.measurements.log_prob([0, 1] * 5), axes=("step",)).explaind.check()
    assert ledger.step.values.tolist() == [1]
    np.testing.assert_allclose(ledger.initial, saved[1][1], atol=1e-5)
    assert run.plan(X, axes=("layer", "step")).steps == EPOCHS - 1
    stored = run.attribute(X, axes=("layer", "step"), out=tmp_path / "ledger.zarr", batch_size=4)
    stored.explaind.check()
    # Another process opens the same series under the same identifier, and can then continue the store.
    assert open_form(saved, "keras").run_id != "" and open_form(saved).run_id == run.run_id


def test_what_reads_ledgers_reads_those_of_checkpoints(run):
    ledger = run.attribute(X, axes=("layer", "step"))
    assert tuple(fidelity(ledger).terms) == ledger.explaind.terms
    drawn = [
        ledger.explaind.plot.balance(),
        ledger.explaind.plot.layers(),
        ledger.explaind.plot.steps(by="term"),
    ]
    for figure in drawn:
        assert terms.label(names.WEIGHTS) in figure.to_json()


def test_layers_that_were_frozen_are_state(saved):
    model = build()
    model.get_layer("first").trainable = False
    run = open_form(saved, model=model)
    ledger = run.attribute(X, axes=("layer",))
    ledger.explaind.check()
    assert float(np.abs(ledger.weights.sel(layer="net/first")).max()) == 0
    assert float(np.abs(ledger.state.sel(layer="net/first")).max()) > 0
    assert {v.path for v in run.variables} == {v.path for v in model.trainable_variables}
