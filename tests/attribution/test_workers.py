"""Answers by the workers of a Dask client: the same as those of one process."""

import os
import signal
import threading
import time
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
import xarray as xr
from dask.distributed import Client, LocalCluster

import explaind_tf as xtf
from explaind_tf import constants as names
from explaind_tf.attribution.run import open_run
from explaind_tf.attribution.workers import on_workers
from explaind_tf.attribution.workers.assignment import Assignment, Part
from explaind_tf.errors import WorkersError
from explaind_tf.kernel.use_rows import RowsByUse, Update, UpdateRows
from explaind_tf.measurements import log_prob
from explaind_tf.sweeps import choose, joining, reverse_sweep, segments
from explaind_tf.sweeps.joining import Leaving, enter
from tests.helpers import X, batches, dense_model, double_precision, fit
from tests.nightly import sweep

pytestmark = [
    pytest.mark.slow,
    # Dask leaves them to Python's collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

# Of the movement, in float64: other groups of inputs in a matrix product round otherwise.
ALIKE = 1e-9
EPOCHS = 8


def recorded(run_dir, optimizer, *, retrain=False):
    model = dense_model(keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(2))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, run_eagerly=not retrain)
    labels = (X.sum(axis=1) > 0).astype("int32")
    logger = xtf.PathLogger(run_dir, verbose=False, retrain=retrain)
    fit(model, logger.tap(batches(X, labels)), logger, epochs=EPOCHS)
    return open_run(run_dir)


@pytest.fixture(autouse=True, scope="module")
def _float64():
    with double_precision():
        yield


@pytest.fixture(name="in_threads", scope="module")
def _in_threads():
    """Workers in threads of this process: they need not import TensorFlow."""
    with (
        LocalCluster(n_workers=4, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture(name="adamw", scope="module")
def _adamw(tmp_path_factory):
    return recorded(tmp_path_factory.mktemp("adamw") / "run", xtf.PathAdamW(0.01, weight_decay=0.1))


@pytest.fixture(name="problem", scope="module")
def _problem():
    return X[:5], log_prob([0, 1, 1, 0, 1])


def assert_alike(ledger, whole):
    """Hold every entry against that of the answer of one process."""
    assert ledger.attrs["method"] == whole.attrs["method"]
    ledger.explaind.check()
    trees = [one if hasattr(one, "subtree") else {"/": one} for one in (ledger, whole)]
    nodes = [
        {node.path: node.to_dataset() for node in tree.subtree} if hasattr(tree, "subtree") else tree
        for tree in trees
    ]
    assert list(nodes[0]) == list(nodes[1])
    for path, own in nodes[1].items():
        assert list(nodes[0][path].variables) == list(own.variables)
        for name, array in own.data_vars.items():
            difference = np.abs(nodes[0][path][name] - array) / whole[names.MOVEMENT]
            assert float(difference.max()) < ALIKE, name


QUESTIONS = {
    "none": {"axes": ()},
    "layer and step": {"axes": ("layer", "step")},
    "sample": {"axes": ("sample",)},
    "sample, layer and step": {"axes": ("sample", "layer", "step")},
    "effect": {"axes": ("sample", "step"), "step_of": "effect", "steps": range(7, 15)},
    "sample, some steps": {"axes": ("sample",), "steps": range(5, 9)},
    "group and step": {"axes": ("group", "step"), "groups": np.arange(len(X)) % 2},
    "group": {"axes": ("group",), "groups": np.arange(len(X))},
    "parameter": {"axes": ("parameter",), "steps": range(4)},
}
CORE_QUESTIONS = ("sample, layer and step", "effect", "group and step", "parameter")


@pytest.mark.parametrize("name", sweep(QUESTIONS, core=CORE_QUESTIONS))
def test_workers_answer_as_one_process_does(adamw, problem, in_threads, name):
    question = QUESTIONS[name]
    whole = adamw.attribute(*problem, progress=False, **question)
    assert_alike(adamw.attribute(*problem, progress=False, client=in_threads, **question), whole)


OPTIMIZERS = {
    "momentum": lambda: xtf.PathSGD(0.1, momentum=0.5),
    "no momentum": lambda: xtf.PathSGD(0.1),
    "accumulated": lambda: xtf.PathAdam(0.01, gradient_accumulation_steps=3),
    "no forgetting": lambda: xtf.PathLion(0.01),
}


@pytest.mark.parametrize("name", sweep(OPTIMIZERS, core=("accumulated",)))
def test_segments_know_what_momentum_keeps(tmp_path, problem, in_threads, name):
    run = recorded(tmp_path / "run", OPTIMIZERS[name]())
    whole = run.attribute(*problem, ("sample", "step"), progress=False)
    assert_alike(run.attribute(*problem, ("sample", "step"), progress=False, client=in_threads), whole)


@pytest.mark.parametrize("kept", [1, 0])
def test_no_pass_is_taken_twice(adamw, problem, in_threads, monkeypatch, kept):
    """But the rows Φ of the steps that a segment has no memory to keep."""
    passes = []

    def count(module, name):
        counted = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, **kw: passes.append(name) or counted(*args, **kw))

    count(joining, "path_rows")
    count(reverse_sweep.ReverseSweep, "_products")
    monkeypatch.setattr(joining, "_KEPT_SHARE", kept)
    # Since the inputs are four blocks for four workers.
    asked = {"axes": ("sample",), "progress": False, "batch_size": 2}
    whole = adamw.attribute(*problem, **asked)
    alone = passes.count("path_rows"), passes.count("_products")
    passes.clear()
    assert_alike(adamw.attribute(*problem, client=in_threads, **asked), whole)
    found = passes.count("path_rows") * 3 / 4, passes.count("_products")
    if kept:
        assert found == alone
    else:
        # All but the first of four segments look ahead.
        assert found == (alone[0] * 1.75, alone[1])


def test_what_enters_a_segment_is_what_left_those_after_it():
    """Against the recursion over all updates at once; the first three of nine are not accounted for."""
    rng, memory = np.random.default_rng(0), 0.7
    updates = [
        UpdateRows(
            step,
            None if step < 3 else tf.constant(rng.normal(size=(2, 4))),
            Update(0.3, 0.0, rng.normal(size=4), np.asarray(1.0)),
        )
        for step in range(9)
    ]
    whole = RowsByUse(memory)
    for update in updates[::-1]:
        whole.take(update)
    later = None
    for own in (updates[7:], updates[5:7], updates[1:5], updates[:1]):
        window = RowsByUse(memory)
        for update in own[::-1]:
            window.take(update)
        psi = [] if window.leaving is None else [window.leaving.psi.numpy()]
        early = sum(update.phi is None for update in own)
        later = enter(Leaving(psi, memory ** (len(own) - early), memory**early), later)
    assert later.left == pytest.approx(whole.leaving.left)
    np.testing.assert_allclose(later.psi[0], whole.leaving.psi)


ANSWERS = {
    "sample": {"axes": ("sample",)},
    "group, layer and step": {"axes": ("group", "layer", "step"), "groups": np.arange(len(X)) % 2},
    "learning rate": {"axes": ("step",), "by": "learning_rate"},
}


@pytest.mark.parametrize("name", sweep(ANSWERS, core=("sample",)))
def test_workers_differentiate_as_one_process_does(adamw, problem, in_threads, tmp_path, name):
    question = {"progress": False, **ANSWERS[name]}
    whole = adamw.counterfactual(*problem, **question)
    shared = adamw.counterfactual(*problem, client=in_threads, **question)
    xr.testing.assert_allclose(shared, whole, rtol=ALIKE, atol=1e-12)
    assert shared.attrs == whole.attrs
    stored = adamw.counterfactual(*problem, client=in_threads, out=tmp_path / "answer.zarr", **question)
    xr.testing.assert_allclose(stored.load(), whole, rtol=ALIKE, atol=1e-12)


@pytest.mark.nightly
def test_workers_train_on_halves_as_one_process_does(tmp_path, problem, in_threads):
    run = recorded(tmp_path / "run", xtf.PathAdamW(0.01), retrain=True)
    asked = {"at": "halves", "repeats": 2, "progress": False}
    whole = run.counterfactual(*problem, **asked)
    shared = run.counterfactual(*problem, client=in_threads, **asked)
    xr.testing.assert_allclose(shared, whole, rtol=ALIKE, atol=1e-12)


def task_of(run, problem, **options):
    from explaind_tf.questions.options import make_options

    inputs, measurement = problem
    return run._task(inputs, measurement, make_options("attribute", axes=("sample",), **options))


def test_segments_have_each_step_once_and_begin_where_nothing_is_left(tmp_path, problem):
    run = recorded(tmp_path / "run", xtf.PathSGD(0.1, momentum=0.1))
    found = segments.segments_of(task_of(run, problem, step_of="effect"), 4)
    assert len(found) == 4
    assert [step for own in found for step in range(own.first, own.stop)] == list(range(len(run.steps)))
    # 0.1¹⁶ is below the rounding of float64.
    assert [own.begin - own.stop for own in found] == [16, 12, 6, 0]
    # By use, they are joined.
    assert all(own.begin == own.stop for own in segments.segments_of(task_of(run, problem), 4))


def test_segments_of_late_steps_leave_out_what_is_forgotten(tmp_path, problem):
    run = recorded(tmp_path / "run", xtf.PathSGD(0.1, momentum=0.1))
    (only,) = segments.segments_of(task_of(run, problem, steps=range(20, 22)), 1)
    assert (only.first, only.stop, only.begin) == (4, 22, 22)


def test_a_segment_ends_with_an_update(tmp_path, problem):
    run = recorded(tmp_path / "run", xtf.PathAdam(0.01, gradient_accumulation_steps=3))
    found = segments.segments_of(task_of(run, problem), 5)
    assert [own.stop % 3 for own in found] == [0] * len(found)


def test_more_workers_than_inputs_or_steps(adamw, problem, in_threads):
    inputs, _ = problem
    asked = {"axes": ("sample",), "steps": range(2), "progress": False}
    whole = adamw.attribute(inputs[:1], log_prob([0]), **asked)
    assert_alike(adamw.attribute(inputs[:1], log_prob([0]), client=in_threads, **asked), whole)


def test_a_store_is_written_and_gone_on_with(adamw, in_threads, tmp_path, monkeypatch):
    problem = X[:3], log_prob([0, 1, 1])
    asked = {"axes": ("sample",), "steps": range(6), "progress": False, "client": in_threads}
    asked["memory_limit"] = 40 * adamw.step_store.layout.size  # one row at a time, to make the blocks small
    right = adamw.attribute(*problem, out=tmp_path / "whole.zarr", **asked).load()
    answered, answer = [], on_workers.OnWorkers.answer

    def stops(self, task, *rest):
        if answered:
            raise KeyboardInterrupt
        answered.append(task)
        return answer(self, task, *rest)

    monkeypatch.setattr(on_workers.OnWorkers, "answer", stops)
    with pytest.raises(KeyboardInterrupt):
        adamw.attribute(*problem, out=tmp_path / "ledger.zarr", **asked)
    monkeypatch.undo()
    assert adamw.attribute(*problem, out=tmp_path / "ledger.zarr", **asked).load().identical(right)


def test_errors_of_a_worker_are_those_of_one_process(adamw, problem, in_threads, monkeypatch):
    def refuses(task):
        raise ArithmeticError("out of luck")

    monkeypatch.setattr("explaind_tf.attribution.workers.jobs.choose_routes", refuses)
    with pytest.raises(ArithmeticError, match="out of luck") as caught:
        adamw.attribute(*problem, client=in_threads)
    assert "asked to choose how it is computed" in caught.value.__notes__[0]


def test_another_run_at_the_path_is_refused(adamw, problem, tmp_path):
    other, task = recorded(tmp_path / "other", xtf.PathSGD(0.1)), task_of(adamw, problem)
    sent = Assignment(
        partial(open_run, other.run_dir),
        adamw.run_id,
        24,
        10,
        task.everything,
        problem[1],
        task.question.options,
    )
    with pytest.raises(WorkersError, match="found another run"):
        sent.task(Part(slice(None)))


def test_a_run_that_grew_is_opened_again(problem, tmp_path):
    opened = [recorded(tmp_path / "run", xtf.PathSGD(0.1))]
    asked = task_of(opened[0], problem)
    opener, rest = partial(opened.__getitem__, -1), (asked.everything, problem[1], asked.question.options)
    first = Assignment(opener, opened[0].run_id, 24, 10, *rest)
    assert first.task(Part(slice(None))).run is opened[0]
    opened.append(open_run(tmp_path / "run"))
    opened[0].step_store = range(3)  # as it was before it grew
    assert first.task(Part(slice(None))).run is opened[1]
    with pytest.raises(WorkersError, match=r"24 steps and 10 samples.* 25 steps of a run with 10"):
        Assignment(opener, opened[0].run_id, 25, 10, *rest).task(Part(slice(None)))


def test_momentum_that_forgets_nothing_reaches_to_the_end(problem, tmp_path):
    run = recorded(tmp_path / "run", xtf.PathSGD(0.001, momentum=1.0))
    found = segments.segments_of(task_of(run, problem, step_of="effect"), 3)
    assert {own.begin for own in found} == {24}


def test_what_is_no_client_is_refused(adamw, problem):
    with pytest.raises(TypeError, match="must be a dask"):
        adamw.attribute(*problem, client="tcp://127.0.0.1:8786")


def test_a_client_without_workers_is_told(adamw, problem):
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as client,
        pytest.raises(WorkersError, match="has no workers"),
    ):
        adamw.attribute(*problem, client=client)


def test_workers_that_are_gone_are_told(adamw, problem, in_threads, monkeypatch):
    monkeypatch.setattr(on_workers, "_LOOK_SECONDS", 0.1)
    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        left, choose_routes = threading.Event(), choose.choose_routes

        def goes(task):
            left.set()
            time.sleep(1)
            return choose_routes(task)

        monkeypatch.setattr("explaind_tf.attribution.workers.jobs.choose_routes", goes)
        stopper = threading.Thread(target=lambda: (left.wait(), cluster.scale(0)))
        stopper.start()
        with pytest.raises(WorkersError, match="are gone"):
            adamw.attribute(*problem, client=client)
        stopper.join()


@pytest.mark.parametrize(
    ("workers", "kills"), [(1, 1), pytest.param(2, 10, marks=pytest.mark.nightly(daily=False))]
)
def test_killed_workers_change_nothing(adamw, problem, workers, kills):
    """In processes of their own, workers are killed while they compute."""
    whole = adamw.attribute(*problem, ("sample",), progress=False)
    with (
        LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        rng = np.random.default_rng(kills)

        def kill():
            """Wait until a worker sweeps, and a moment more, and kill it."""
            while True:
                for address, tasks in client.processing().items():
                    if any("sweep" in name for name in tasks):
                        pid = client.run(os.getpid, workers=[address])[address]
                        time.sleep(rng.uniform(0, 0.5))
                        os.kill(pid, signal.SIGKILL)
                        return

        for _ in range(kills):
            killer = threading.Thread(target=kill)
            killer.start()
            ledger = adamw.attribute(*problem, ("sample",), progress=False, client=client)
            killer.join()
            client.wait_for_workers(workers)
            assert_alike(ledger, whole)
