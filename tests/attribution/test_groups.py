"""The group axis: samples in groups, by a forward or by a reverse sweep."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from explaind_tf import constants as names
from tests.helpers import LABELS, X, dense_model, double_precision, fit
from tests.nightly import sweep

pytestmark = pytest.mark.slow

# The same sums by other routes, in float64.
SAME = 1e-9
GROUPS = np.array(["even" if i % 3 else "third" for i in range(10)])


def record(run_dir, model, **compiled):
    rng = np.random.default_rng(3)
    dataset = tf.data.Dataset.from_tensor_slices((np.arange(10), (X.astype(float), LABELS)))
    logger = xtf.PathLogger(run_dir, verbose=False)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    options = {"optimizer": xtf.PathAdamW(0.02, weight_decay=0.1), "loss": loss, "run_eagerly": True}
    model.compile(**options | compiled)
    fit(model, logger.tap(dataset.shuffle(10, seed=4).batch(4)), logger, epochs=3)
    return xtf.open_run(run_dir), rng.normal(size=(3, 3))


def hidden(*middle):
    dense = keras.layers.Dense
    return dense_model(dense(5, activation="tanh", name="hidden"), *middle, dense(2, name="logits"))


@pytest.fixture(name="case", scope="module")
def _case(tmp_path_factory):
    with double_precision():
        yield record(tmp_path_factory.mktemp("groups") / "run", hidden())


BY_ID = dict(zip(range(10), GROUPS, strict=True)) | {"not in the run": "x"}


def assert_groups_are_sums_of_samples(groups, samples, sample_groups):
    scale = float(samples.movement.max())
    for label in groups[names.GROUP].values:
        members = samples.data.isel(sample=np.flatnonzero(sample_groups == label)).sum("sample")
        np.testing.assert_allclose(groups.data.sel(group=label), members, atol=SAME * scale, rtol=0)


@pytest.mark.parametrize(
    "axes",
    [
        ("step", "layer"),
        (),
        *(pytest.param((axis,), marks=pytest.mark.nightly) for axis in ("step", "layer")),
    ],
)
def test_a_group_is_the_sum_of_its_samples(case, axes):
    run, x = case
    question = {"tolerance": 1e-8, "progress": False}
    groups = run.attribute(x, axes=("group", *axes), groups=BY_ID, **question)
    samples = run.attribute(x, axes=("sample", *axes), step_of="effect", **question)
    groups.explaind.check()
    assert groups.data.dims == (names.INPUT, names.OUTPUT, names.GROUP, *sorted(axes))
    assert_groups_are_sums_of_samples(groups, samples, GROUPS[samples[names.SAMPLE].values])


def test_the_step_is_that_of_the_effect(case):
    run, x = case
    late = run.attribute(x, axes=("group", "step"), groups=BY_ID, steps=range(5, 9), progress=False)
    assert late[names.STEP].values.tolist() == [5, 6, 7, 8]
    assert late.attrs["step_of"] == "effect"
    assert "forward sweep" in late.attrs["method"]
    late.explaind.check()


def test_groups_by_weight(case):
    run, x = case
    tree = run.attribute(x, axes=("group", "parameter"), groups=BY_ID, progress=False)
    tree.explaind.check()
    layers = run.attribute(x, axes=("group", "layer"), groups=BY_ID, progress=False)
    (layer,) = (name for name in run.layers if name.endswith("hidden"))
    both = tree[f"{layer}/kernel"].data.sum(["axis_0", "axis_1"]) + tree[f"{layer}/bias"].data.sum("axis_0")
    assert both.dims == (names.INPUT, names.OUTPUT, names.GROUP)
    np.testing.assert_allclose(both, layers.data.sel(layer=layer), atol=SAME * float(layers.movement.max()))


CASES = {
    "coupled": ([keras.layers.BatchNormalization], {}),
    "random": ([lambda: keras.layers.Dropout(0.3, seed=1)], {}),
    "nesterov": ([], {"optimizer": lambda: xtf.PathSGD(0.1, momentum=0.9, nesterov=True)}),
    "accumulation": ([], {"optimizer": lambda: xtf.PathAdamW(0.02, gradient_accumulation_steps=2)}),
    "clipvalue": ([], {"optimizer": lambda: xtf.PathAdamW(0.02, clipvalue=0.01)}),
    "clipnorm": ([], {"optimizer": lambda: xtf.PathSGD(0.1, global_clipnorm=0.1)}),
}


# test_rounding.py asks about groups of coupled samples every time.
@pytest.mark.parametrize("name", sweep(CASES, core=("accumulation",)))
def test_groups_balance_under(tmp_path, name):
    middle, compiled = CASES[name]
    with double_precision():
        run, x = record(
            tmp_path / "run",
            hidden(*(make() for make in middle)),
            **{key: make() for key, make in compiled.items()},
        )
        question = {"tolerance": 1e-6, "progress": False}
        groups = run.attribute(x, axes=("group", "step"), groups=BY_ID, **question)
        groups.explaind.check()
        samples = run.attribute(x, axes=("sample",), **question)
        total = groups.assign(data=groups.data.sum("step"))
        assert_groups_are_sums_of_samples(total, samples, GROUPS[samples[names.SAMPLE].values])


def test_labels_in_the_order_of_the_ids(case):
    run, x = case
    labels = GROUPS[run.samples.ids]
    ledger = run.attribute(x, axes=("group",), groups=labels, progress=False)
    assert set(ledger[names.GROUP].values) == {"even", "third"}


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"axes": ("group",)}, "belong together"),
        ({"axes": (), "groups": GROUPS}, "belong together"),
        ({"axes": ("group",), "groups": GROUPS[:4]}, "groups has 4 labels; the run has 10 samples"),
        ({"axes": ("group",), "groups": {0: "a"}}, "no label for 9 of 10 samples"),
        ({"axes": ("group", "sample"), "groups": GROUPS}, "'sample' or 'group', not both"),
    ],
)
def test_bad_questions_are_refused(case, question, message):
    run, x = case
    with pytest.raises(ValueError, match=message):
        run.attribute(x, progress=False, **question)
