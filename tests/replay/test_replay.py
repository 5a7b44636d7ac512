"""Replay: displacements are split into causes, step after step or each step on its own."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from explaind_tf.kernel.derivatives.derivatives import Derivatives, Precisions
from explaind_tf.measurements import outputs
from explaind_tf.replay.binding import pure_model
from explaind_tf.replay.replay import Replay
from tests.helpers import Recorded, X, record
from tests.runs.damage import STEPS, edit_manifest, read_records, rewrite


@pytest.fixture(scope="module", name="replay")
def _replay(tmp_path_factory):
    run = record(tmp_path_factory.mktemp("replay") / "run").open()
    derivatives = Derivatives(pure_model(run, outputs()))
    return Replay(run, Precisions(derivatives, derivatives))


def test_causes_add_up_to_the_displacement(replay):
    for step in replay.path_steps(0, len(replay.run.steps)):
        assert list(step.causes) == ["weight_decay", "data"]
        # float32 rounds each of the two.
        np.testing.assert_allclose(sum(step.causes.values()), step.path.displacement, atol=1e-7)
        np.testing.assert_allclose(step.rest, 0, atol=1e-7)


def test_a_step_split_alone_is_as_in_order(replay):
    assert replay.splits_each_alone
    in_order = list(replay.path_steps(0, len(replay.run.steps)))
    whole = list(replay.whole_steps(0, len(replay.run.steps)))
    for expected, (step, largest) in zip(reversed(in_order), reversed(whole), strict=True):
        replayed = replay.step(expected.number)
        found = replay.split(replayed, replay.update(replayed), largest)
        assert found.number == step.number == expected.number
        assert found.causes.keys() == expected.causes.keys()
        for name, cause in expected.causes.items():
            np.testing.assert_array_equal(found.causes[name], cause)
        (displacement,) = step.causes.values()
        np.testing.assert_array_equal(displacement, expected.path.displacement)


def test_the_size_that_a_split_is_checked_against_is_that_of_the_largest_step_so_far(replay):
    sizes = [
        np.linalg.norm(step.theta_stepped - step.theta_start)
        for step in map(replay.run.step_store.transition, range(len(replay.run.steps)))
    ]
    found = [whole.largest for whole in replay.whole_steps(0, len(sizes))]
    np.testing.assert_allclose(found, np.maximum.accumulate(sizes), rtol=1e-6)


def test_a_manifest_whose_optimizer_is_not_that_of_its_law_is_refused(small_run: Recorded, run_dir: Path):
    shutil.copytree(small_run.run_dir, run_dir)
    edit_manifest(run_dir, lambda body: body["optimizer"].update(second_moment=False))
    with pytest.raises(xtf.RunFormatError, match="second_moment=False, but the law 'AdamW' has True"):
        xtf.open_run(run_dir).verify(progress=False)


def test_weights_that_stood_still_where_the_law_moves_them_are_unexplained(
    small_run: Recorded, run_dir: Path
):
    shutil.copytree(small_run.run_dir, run_dir)
    records = read_records(run_dir / STEPS)
    start, first = (tf.train.Example.FromString(record) for record in records[:2])
    first.features.feature["theta"].CopyFrom(start.features.feature["theta"])
    rewrite(run_dir, STEPS, [records[0], first.SerializeToString(), *records[2:]])
    run = xtf.open_run(run_dir)
    with pytest.raises(xtf.UnbalancedLedgerError, match=r"Step 0 .* does not explain"):
        run.verify(progress=False)
    assert run.attribute(X[:1], progress=False).attrs["unexplained_steps"][0] == 0


def test_batches_lead_where_the_recorded_momentum_does(replay):
    recorded = replay.path_steps(0, len(replay.run.steps))
    replayed = replay.path_steps(0, len(replay.run.steps), check_batches=True)
    for one, other in zip(recorded, replayed, strict=True):
        np.testing.assert_allclose(one.causes["data"], other.causes["data"], atol=1e-6)
