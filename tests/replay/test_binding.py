"""Runs share compiled functions only if these compute the same."""

from collections.abc import Sequence

import keras
import pytest

import explaind_tf as xtf
from explaind_tf import measurements
from explaind_tf.kernel.functions import PureModel
from explaind_tf.measurements import Measurement, as_measurement
from explaind_tf.replay.binding import pure_model
from tests.helpers import LABELS, record

Dense, Dropout = keras.layers.Dense, keras.layers.Dropout


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[xtf.Run]:
    """Two runs of one model, and a run of another with variables of the same shapes."""

    def recorded(name: str, layers: Sequence[keras.layers.Layer]) -> xtf.Run:
        return record(tmp_path_factory.mktemp(name) / "run", layers, epochs=1).open()

    def layers(activation: str) -> list[keras.layers.Layer]:
        return [Dense(3, activation=activation), Dropout(0.2, seed=1), Dense(2)]

    return [
        recorded("one", layers("tanh")),
        recorded("same", layers("tanh")),
        recorded("other", layers("relu")),
    ]


def keys(model: PureModel) -> tuple:
    return model.measure_key, model.losses_key


def test_runs_of_one_model_share_and_those_of_another_do_not(runs: list[xtf.Run]):
    one, same, other = (keys(pure_model(run, measurements.outputs())) for run in runs)
    assert None not in one
    assert one == same
    assert one[0] != other[0] and one[1] != other[1]


def test_measurements_do_not_share_with_each_other(runs: list[xtf.Run]):
    found = {
        pure_model(runs[0], measurement).measure_key
        for measurement in (
            measurements.outputs(),
            measurements.log_prob(LABELS),
            measurements.log_prob(LABELS, from_logits=False),
            measurements.margin(LABELS),
        )
    }
    assert len(found) == 4
    # Labels are arguments of the function, not a part of it.
    again = pure_model(runs[1], measurements.log_prob(LABELS[::-1])).measure_key
    assert again in found


@pytest.mark.parametrize(
    "measurement",
    [
        as_measurement(lambda outputs: outputs[:, :1]),
        measurements.loss(keras.losses.mean_squared_error, LABELS),
    ],
    ids=["of the user", "with a function of the user"],
)
def test_functions_of_others_are_never_shared(runs: list[xtf.Run], measurement: Measurement):
    # They may read something that changes between two questions.
    assert pure_model(runs[0], measurement).measure_key is None
