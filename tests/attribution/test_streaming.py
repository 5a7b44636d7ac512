"""Ledgers that are written block by block and go on where they were interrupted."""

import shutil

import numpy as np
import pytest
import xarray as xr

import explaind_tf as xtf
from explaind_tf import constants as names
from explaind_tf.attribution import engine, streaming
from tests.helpers import X

pytestmark = pytest.mark.slow

# Blocks have other nodes and another order of operations than the whole. They share only the tolerance.
TOLERANCE = 1e-3


@pytest.fixture(name="run", scope="module")
def _run(small_run):
    return small_run.open()


@pytest.fixture(name="problem", scope="module")
def _problem():
    return X[:5], xtf.measurements.log_prob([0, 1, 1, 0, 1])


def ask(run, problem, out, **options):
    return run.attribute(
        *problem, **{"axes": ("sample", "layer"), "batch_size": 2, "progress": False, "out": out} | options
    )


@pytest.fixture(name="stored", scope="module")
def _stored(run, problem, tmp_path_factory):
    """Return the path of a finished store, and its ledger."""
    out = tmp_path_factory.mktemp("stored") / "ledger.zarr"
    return out, ask(run, problem, out).load()


@pytest.mark.parametrize(
    "axes", [("sample", "layer"), pytest.param(("step", "layer"), marks=pytest.mark.nightly), ("parameter",)]
)
def test_a_ledger_in_a_store_is_that_in_memory(run, problem, tmp_path, axes):
    stored = ask(run, problem, tmp_path / "ledger.zarr", axes=axes)
    stored.explaind.check()
    whole = run.attribute(*problem, axes=axes, batch_size=2, progress=False)
    assert stored.attrs["method"] == whole.attrs["method"]
    assert stored[names.INPUT].values.tolist() == [0, 1, 2, 3, 4]
    for term in whole.explaind.terms:
        difference = stored.explaind.total(term) - whole.explaind.total(term)
        assert float(np.abs(difference / whole.movement).max()) < TOLERANCE


def test_an_interrupted_call_goes_on_where_it_ended(run, problem, tmp_path, monkeypatch):
    out, answered, right = tmp_path / "ledger.zarr", [], engine.answer

    def answer(part, *arguments):
        if len(answered) == 1:
            raise KeyboardInterrupt
        answered.append(len(part.everything))
        return right(part, *arguments)

    little = 40 * run.step_store.layout.size  # one row at a time, to make the blocks small
    monkeypatch.setattr(engine, "answer", answer)
    with pytest.raises(KeyboardInterrupt):
        ask(run, problem, out, memory_limit=little)
    done = answered[0]
    assert 0 < done < 5
    rest = []
    monkeypatch.setattr(
        engine, "answer", lambda part, *a: rest.append(len(part.everything)) or right(part, *a)
    )
    ledger = ask(run, problem, out, memory_limit=little)
    assert sum(rest) == 5 - done
    ledger.explaind.check()
    again = ask(run, problem, out, memory_limit=little)
    assert sum(rest) == 5 - done  # nothing was left to do
    xr.testing.assert_identical(ledger.load(), again.load())


@pytest.mark.parametrize(
    "other",
    [
        {"axes": ("sample",)},
        {"tolerance": 1e-2},
        {"steps": range(4)},
        {"layers": slice(1)},  # of the run's, whose names Keras makes up
        {"measurement": xtf.measurements.margin([0, 1, 1, 0, 1])},
        {"measurement": xtf.measurements.log_prob([0, 1, 1, 0, 0])},
        {"axes": ("group",), "groups": np.arange(10) % 2},
    ],
    ids=lambda other: "-".join(other),
)
def test_a_store_of_another_question_is_left_alone(run, problem, stored, tmp_path, other):
    out, first = tmp_path / "ledger.zarr", stored[1]
    shutil.copytree(stored[0], out)
    options = {"axes": ("sample", "layer"), "batch_size": 2, "measurement": problem[1]} | other
    if "layers" in other:
        options["layers"] = list(run.layers)[other["layers"]]
    with pytest.raises(ValueError, match=r"ledger\.zarr"):
        run.attribute(problem[0], out=out, progress=False, **options)
    xr.testing.assert_identical(ask(run, problem, out).load(), first)


def test_functions_that_differ_in_a_number_are_two_measurements():
    def first(column):
        return lambda outputs: outputs[:, column : column + 1]

    described = [streaming.described(f) for f in (first(0), first(1), lambda o: o[:, :1], lambda o: o[:, :2])]
    assert len(set(described)) == 4
    assert streaming.described(first(0)) == described[0]


@pytest.mark.parametrize(
    "measurement", [xtf.measurements.log_prob([0]), xtf.measurements.loss("mse", [[0.0]])]
)
def test_a_measurement_is_described_alike_in_every_process(measurement):
    assert "0x" not in streaming.described(measurement.function)
