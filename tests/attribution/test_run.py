"""Identities of the ledger of a run with all features, in float32."""

import itertools

import keras
import numpy as np
import pytest
import xarray as xr

import explaind_tf as xtf
from explaind_tf import constants as names
from explaind_tf.kernel.derivatives.compiled import Compiled
from tests import helpers
from tests.helpers import X, record

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("many_at_once")]

# The same sums in other orders of float32 operations; the requirement is 1e-4 of the movement.
SAME = 1e-5

_AXES = [
    axes
    for size in range(4)
    for axes in itertools.combinations(("sample", "step", "layer", "parameter"), size)
    if not {"layer", "parameter"} <= set(axes)
]


@pytest.fixture(name="problem", scope="module")
def _problem(recorded):
    inputs = np.random.default_rng(7).normal(size=(6, 6, 6, 1)).astype("float32")
    return inputs, xtf.measurements.log_prob([0, 1, 2, 0, 1, 2])


@pytest.fixture(name="totals", scope="module")
def _totals(recorded, problem):
    return xtf.open_run(recorded[0]).attribute(*problem)


@pytest.mark.parametrize("axes", _AXES, ids="-".join)
def test_every_subset_of_axes_balances_and_gives_the_same_totals(run, problem, totals, axes):
    ledger = run.attribute(*problem, axes=axes)
    ledger.explaind.check()
    for term, found in helpers.totals(ledger).items():
        difference = np.abs(found - totals[term]) / totals.movement
        assert float(difference.max()) < SAME, term


@pytest.mark.parametrize(
    "axes", [("sample", "step"), ("sample", "layer", "step"), ("sample", "parameter", "step")]
)
def test_effect_steps_and_use_steps_are_two_views_of_one_sum(run, problem, axes):
    use = run.attribute(*problem, axes=axes)
    effect = run.attribute(*problem, axes=axes, step_of="effect")
    effect.explaind.check()
    assert effect.attrs["step_of"] == "effect"
    if "parameter" in axes:
        node = "net/logits/kernel"
        use, effect, scale = use[node].dataset, effect[node].dataset, float(use.movement.max())
    else:
        scale = float(use.movement.max())
    np.testing.assert_allclose(use.data.sum("step"), effect.data.sum("step"), atol=SAME * scale)
    # A sample cannot have an effect before it was used: momentum only delays.
    assert float(np.abs(use.data.isel(step=0)).sum()) > 0
    used_last = run.step_store.transition(11).rows
    if "parameter" not in axes:
        only_last = [
            s for s in used_last if all(s not in run.step_store.transition(i).rows for i in range(11))
        ]
        assert not effect.data.isel(step=slice(0, 11)).sel(sample=only_last).any()


def test_effect_steps_of_all_samples_add_up_to_the_step_ledger(run, problem):
    by_step = run.attribute(*problem, axes=("step",))
    by_sample = run.attribute(*problem, axes=("sample", "step"), step_of="effect")
    scale = float(by_step.movement.max())
    np.testing.assert_allclose(by_sample.data.sum("sample"), by_step.data, atol=SAME * scale)


def test_each_cause_is_booked_where_it_belongs(run, problem):
    ledger = run.attribute(*problem, axes=("layer", "step"))
    nudged = np.abs(ledger.external).max(["input", "output"])
    assert nudged.where(nudged > 0, drop=True).step.values.tolist() == [
        5
    ]  # after the second epoch of 3 steps
    assert nudged.where(nudged > 0, drop=True).layer.values.tolist() == ["net/logits"]
    drift = np.abs(ledger.state).max(["input", "output", "step"])
    assert drift.where(drift > 0, drop=True).layer.values.tolist() == ["net/norm"]
    penalty = np.abs(ledger.regularizer).max(["input", "output", "step"])
    assert penalty.where(penalty > 0, drop=True).layer.values.tolist() == ["net/logits"]
    assert not ledger.carryover.any()


def test_initial_and_final_are_the_models_own_predictions(run, recorded, problem):
    inputs, _ = problem
    ledger = run.attribute(inputs)
    np.testing.assert_allclose(ledger.final, recorded[1].predict(inputs, verbose=0), atol=1e-6)
    assert ledger.initial.dims == ("input", "output")
    assert ledger.sizes == {"input": 6, "output": 3}


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3, 1e-4])
def test_the_residual_keeps_to_the_tolerance_asked_for(run, problem, tolerance):
    ledger = run.attribute(problem[0], tolerance=tolerance)
    assert bool((np.abs(ledger.residual) <= tolerance * ledger.movement).all())
    assert bool((ledger.movement >= np.abs(ledger.final - ledger.initial).max("output")).all())


def test_a_range_of_steps_accounts_for_that_part_of_the_path(run, problem):
    whole = run.attribute(*problem, axes=("step",))
    part = run.attribute(*problem, axes=("sample", "step"), steps=range(4, 9))
    part.explaind.check()
    scale = float(whole.movement.max())
    np.testing.assert_allclose(
        part.data.sum(["sample", "step"]), whole.data.sel(step=slice(4, 8)).sum("step"), atol=1e-3 * scale
    )
    # Samples used before the range act in it through momentum.
    assert part.step.values.tolist() == list(range(9))
    assert float(np.abs(part.data.sel(step=2)).max()) > 0
    assert run.attribute(*problem, axes=("step",), steps=slice(-3, None)).step.values.tolist() == [9, 10, 11]


def test_layers_that_were_not_asked_for_stay_in_one_entry(run, problem, totals):
    ledger = run.attribute(*problem, axes=("layer",), layers=["net/logits"])
    ledger.explaind.check()
    assert ledger.layer.values.tolist() == ["net/logits", names.OTHER_LAYERS]
    np.testing.assert_allclose(
        ledger.data.sum("layer"), totals.data, atol=SAME * float(totals.movement.max())
    )


def test_a_parameter_ledger_is_a_tree_shaped_like_the_model(run, problem):
    tree = run.attribute(*problem, axes=("parameter", "step"))
    assert isinstance(tree, xr.DataTree)
    assert tree["net/conv/kernel"].data.shape == (6, 1, 3, 3, 1, 4, 12)
    layers = run.attribute(*problem, axes=("layer", "step"))
    dims = [d for d in tree["net/conv/kernel"].data.dims if str(d).startswith("axis_")]
    conv = tree["net/conv/kernel"].data.sum(dims) + tree["net/conv/bias"].data.sum("axis_0")
    scale = float(layers.movement.max())
    np.testing.assert_allclose(conv, layers.data.sel(layer="net/conv"), atol=SAME * scale)


def test_blocks_and_row_groups_do_not_change_the_ledger(run, problem, totals):
    tight = 20 * 4 * run.step_store.layout.size  # two rows at once
    ledger = run.attribute(*problem, axes=("sample", "layer"), batch_size=4, memory_limit=tight)
    ledger.explaind.check()
    # Blocks do not share nodes, so the quadrature may differ within the tolerance.
    np.testing.assert_allclose(
        ledger.explaind.total("data"), totals.data, atol=2e-3 * float(totals.movement.max())
    )


def test_no_step_traces_again_what_one_before_it_has_traced(recorded, problem):
    run = xtf.open_run(recorded[0])

    def traces():
        (derivatives,) = run._compiled.values()
        halves = (derivatives.measurement, derivatives.loss)
        tables = [v if isinstance(v, dict) else {"": v} for half in halves for v in vars(half).values()]
        functions = [function for table in tables for function in table.values()]
        return [f.experimental_get_tracing_count() for f in functions if isinstance(f, Compiled)]

    run.attribute(*problem, axes=("sample", "layer", "step"))
    assert max(traces()) == 1
    before = traces()
    run.attribute(*problem, axes=("sample", "layer", "step"), steps=range(2, len(run.steps)))
    assert traces() == before


def test_a_run_whose_batches_are_not_those_that_trained_is_refused(recorded, problem, monkeypatch):
    foreign = xtf.open_run(recorded[0])
    right = type(foreign.samples).take_flat

    def shifted(self, rows):
        return right(self, (np.asarray(rows) + 1) % len(self))

    monkeypatch.setattr(type(foreign.samples), "take_flat", shifted)
    foreign.attribute(*problem).explaind.check()  # no batch is looked at
    with pytest.raises(xtf.UnbalancedLedgerError, match=r"Step \d+ of .* used another gradient .* for '.*'"):
        foreign.attribute(*problem, axes=("sample",))
    with pytest.raises(xtf.UnbalancedLedgerError, match=r"Step 0 of .* used another gradient"):
        foreign.verify(progress=False)


def test_custom_measurements_are_any_function_of_the_outputs(run, problem):
    ledger = run.attribute(problem[0], lambda outputs: outputs[:, :1] - outputs[:, 1:])
    ledger.explaind.check()
    logits = run.attribute(problem[0])
    np.testing.assert_allclose(
        ledger.final, logits.final[:, :1].values - logits.final[:, 1:].values, atol=1e-5
    )


def test_verify_passes_on_a_good_run(run):
    run.verify(progress=False)


def test_a_ledger_survives_zarr(run, problem, tmp_path):
    ledger = run.attribute(*problem, axes=("sample", "layer"))
    ledger.to_zarr(tmp_path / "ledger.zarr", consolidated=False)
    again = xr.open_zarr(tmp_path / "ledger.zarr", consolidated=False).load()
    xr.testing.assert_identical(again, ledger)
    again.explaind.check()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"axes": ("samples",)}, ["samples", "sample", "parameter"]),
        ({"axes": ("layer", "parameter")}, ["not both"]),
        ({"axes": ("layer",), "layers": ["conv9"]}, ["conv9", "hidden", "logits"]),
        ({"layers": ["conv"]}, ['"layer"', "axes"]),
        ({"steps": [1, 3]}, ["consecutive", "0 … 11"]),
        ({"steps": range(5, 40)}, ["0 … 11"]),
        ({"steps": []}, ["empty"]),
        ({"tolerance": 2}, ["tolerance", "between 0 and 1"]),
        ({"step_of": "both"}, ["use", "effect"]),
        ({"batch_size": 0}, ["batch_size"]),
    ],
)
def test_a_question_the_run_cannot_answer_says_what_there_is(run, problem, arguments, words):
    with pytest.raises(ValueError) as caught:
        run.attribute(*problem, **arguments)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x[0], ["batch dimension", "(6, 6, 1)"]),
        (lambda x: x[:, :5], ["(6, 5, 6, 1)", "recorded with"]),
        (lambda x: x.astype("int32"), ["int32", "float32", "astype"]),
        (lambda x: np.where(x > 1, np.nan, x), ["NaN", "inputs"]),
        (lambda x: x[:0], ["empty"]),
        (lambda x: {"image": x}, ["dict"]),
    ],
)
def test_inputs_unlike_those_of_training_are_refused(run, problem, change, words):
    with pytest.raises(ValueError) as caught:
        run.attribute(change(problem[0]))
    for word in words:
        assert word in str(caught.value)


def test_labels_must_match_the_inputs(run, problem):
    with pytest.raises(ValueError, match="labels for 6 inputs; 2 inputs"):
        run.attribute(problem[0][:2], problem[1])


def test_a_ledger_too_large_for_memory_is_refused_before_work_begins(run, problem, monkeypatch):
    from explaind_tf.ledgers import book

    monkeypatch.setattr(book, "_MEMORY_SHARE", 1e-9)
    with pytest.raises(MemoryError, match="Keep fewer axes"):
        run.attribute(*problem, axes=("sample", "step"))


# Runs of their own. They come last: the process keeps only some compiled functions, and those of the run above are
# used again.


def test_variables_may_be_called_like_coordinates(tmp_path):
    recorded = record(tmp_path / "run", [keras.layers.Dense(2, name="output")], epochs=1)
    run = recorded.open()
    tree = run.attribute(X, axes=("parameter",))
    tree.explaind.check()
    assert tree[run.layers[0] + "_/kernel"].data.shape == (len(X), 2, 3, 2)


def _recorded_sequence(run_dir, layer):
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(20, 4, 2)).astype("float32"), rng.normal(size=(20, 3)).astype("float32")
    model = keras.Sequential([keras.Input((4, 2)), layer, keras.layers.Flatten(), keras.layers.Dense(3)])
    model.compile(xtf.PathAdamW(1e-2), loss="mse", run_eagerly=True)
    logger = xtf.PathLogger(run_dir, verbose=False)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    model.fit(logger.tap(dataset), epochs=1, callbacks=[logger], verbose=0, shuffle=False)
    return xtf.open_run(run_dir), x


def _first_output(outputs):
    return outputs[:, :1]


def test_samples_go_by_rules_whatever_the_number_of_rows(tmp_path):
    import keras

    run, x = _recorded_sequence(tmp_path / "run", keras.layers.Dense(6, activation="tanh"))
    many = run.attribute(x, _first_output, axes=("sample",))
    few = run.attribute(x[:1], _first_output, axes=("sample",))
    assert "(rules)" in many.attrs["method"] and "(rules)" in few.attrs["method"]
    np.testing.assert_allclose(many.data[:1], few.data, atol=2e-3 * float(few.movement.max()))


def test_a_function_within_a_layer_is_expanded(tmp_path):
    import keras
    import tensorflow as tf

    class Compiled(keras.layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], 4))

        def call(self, inputs):
            inner = tf.function(lambda values: tf.tanh(values))
            return tf.function(lambda x, kernel: inner(x @ kernel))(inputs, tf.convert_to_tensor(self.kernel))

    run, x = _recorded_sequence(tmp_path / "run", Compiled())
    ledger = run.attribute(x[:3], axes=("sample", "layer"))
    ledger.explaind.check()
    assert "(rules)" in ledger.attrs["method"]


def test_samples_of_a_loop_go_one_by_one_or_row_by_row_and_agree(tmp_path):
    import keras

    run, x = _recorded_sequence(tmp_path / "run", keras.layers.SimpleRNN(3))
    many = run.attribute(x, _first_output, axes=("sample",))
    few = run.attribute(x[:1], _first_output, axes=("sample",))
    assert "(loop)" in many.attrs["method"] and "(jvp)" in few.attrs["method"]
    np.testing.assert_allclose(many.data[:1], few.data, atol=2e-3 * float(few.movement.max()))
