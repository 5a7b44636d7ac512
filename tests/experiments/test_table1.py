"""Table 1: its fixed nodes, and CIFAR-2 without a download."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow_datasets as tfds

from experiments.table1 import __main__ as table1
from experiments.table1.machines import Machines
from explaind_tf import measurements, open_run
from tests.helpers import X

pytestmark = pytest.mark.slow

CIFAR2 = dataclasses.replace(table1.QUICK, dataset=table1.Dataset.CIFAR2, steps=2, inputs=3)


def test_cifar2_goes_the_same_way(tmp_path):
    settings = dataclasses.replace(CIFAR2, data_dir=str(tmp_path))
    with tfds.testing.mock_data(num_examples=60):
        task = table1.resnet9(settings, seed=0)
    assert task.x.shape == (3, 32, 32, 3)
    assert task.model.output_shape == (None, 2)
    assert set(task.y) <= {0, 1}


def test_many_fixed_nodes_give_the_ledger(small_run):
    run = open_run(small_run.run_dir)
    machines = Machines(run, X)
    fixed, adaptive = machines.by_fixed_nodes(50), machines.by_refinement(1e-4)
    ledger = run.attribute(X, measurements.outputs(), tolerance=1e-4, progress=False)
    # Twice the tolerance: once for the ledger, once for the machine.
    np.testing.assert_allclose(
        adaptive.reconstruction, ledger.explaind.reconstruct(), atol=2e-4 * float(ledger.movement.max())
    )
    # The network has tanh, so it is smooth: the error of midpoints is h²/24 of the second derivative.
    np.testing.assert_allclose(fixed.reconstruction, fixed.outputs, atol=1e-3)
    assert fixed.passes.derivative_passes == 50
    assert adaptive.passes.derivative_passes == ledger.attrs["quadrature_nodes"] / len(X) / len(run.steps)


def test_one_node_costs_one_derivative_and_no_forward_pass(small_run):
    machine = Machines(open_run(small_run.run_dir), X).by_fixed_nodes(1)
    assert (machine.passes.derivative_passes, machine.passes.forward_passes) == (1, 0)


@pytest.mark.parametrize("name", ["PathSGD", pytest.param("PathAdamW", marks=pytest.mark.nightly)])
def test_optimizers_are_those_named(name):
    which = table1.Which.SGD if name == "PathSGD" else table1.Which.RESNET9
    assert type(table1.TASKS[which](table1.QUICK, 0).model.optimizer).__name__ == name
    keras.backend.clear_session()
