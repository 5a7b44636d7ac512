"""What a training with a plain Keras optimizer is told to use instead."""

from pathlib import Path

import keras
import pytest

import explaind_tf as xtf
from tests.helpers import batches, dense_model, fit

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("optimizer", "says"),
    [
        ("SGD", r"\.SGD\..*compile with explaind_tf\.PathSGD\(.*arguments of keras\.optimizers\.SGD"),
        ("RMSprop", r"\.RMSprop\..*compile with explaind_tf\.PathRMSprop\("),
        ("Ftrl", r"\.Ftrl\..*compile with one of explaind_tf \(PathAdadelta, .*, PathSGD\)"),
    ],
)
def test_a_plain_optimizer_is_refused_with_the_name_of_its_counterpart(
    optimizer: str, says: str, tmp_path: Path
):
    model = dense_model()
    model.compile(getattr(keras.optimizers, optimizer)(0.1), "mse", run_eagerly=True)
    with pytest.raises(xtf.RefusedError, match=f"(?s){says}"):
        fit(model, batches(), xtf.PathLogger(tmp_path / "run", verbose=False, require="sample"))
