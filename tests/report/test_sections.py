"""From a run to a section of the report."""

import html
from pathlib import Path

import keras
import numpy as np
import pytest

import explaind_tf as xtf
from explaind_tf.report import Asked, Example, Section, account_for, write_report
from tests.helpers import batches, fit

pytestmark = pytest.mark.slow

TOKENS = np.random.default_rng(0).integers(0, 5, (10, 4))
NEXT = (TOKENS + 1) % 5


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> tuple[keras.Model, Section]:
    """Record a model of the next token at each position, and return it with its section."""
    inputs = keras.Input((4,), dtype="int32")
    model = keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Embedding(5, 3)(inputs)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(xtf.PathAdamW(0.05), loss=loss, run_eagerly=True)
    logger = xtf.PathLogger(tmp_path_factory.mktemp("sequences") / "run", verbose=False)
    fit(model, logger.tap(batches(TOKENS.astype("int32"), NEXT)), logger)
    section = account_for(
        xtf.open_run(logger.run_dir),
        Asked(TOKENS[:3].astype("int32"), NEXT[:3], shown=2),
        title="Sequences",
        introduction="Each token is followed by the next number.",
        show=lambda arrays, label: Example(" ".join(map(str, arrays[0]))),
        progress=False,
    )
    return model, section


def test_of_a_sequence_the_last_prediction_is_accounted_for(sequences: tuple[keras.Model, Section]):
    model, section = sequences
    logits = model.predict(TOKENS[:3], verbose=0)[:, -1]
    np.testing.assert_allclose(section.balance.final, logits, rtol=1e-5)
    expected = keras.ops.log_softmax(logits).numpy().max(axis=1)
    np.testing.assert_allclose(section.path.final.squeeze("output"), expected, rtol=1e-4)
    predicted, right = logits.argmax(axis=1), NEXT[:3, -1]
    for i, said in enumerate(section.predictions):
        assert said.startswith(f"The model says {predicted[i]}")
        assert ("right" in said) == (predicted[i] == right[i])


def test_the_report_of_a_sequence_says_which_position(sequences: tuple[keras.Model, Section], tmp_path: Path):
    write_report(tmp_path / "report.html", [sequences[1]])
    page = html.unescape((tmp_path / "report.html").read_text())
    assert "the last position" in page
    assert "log_prob(predicted, position=-1)" in page and "outputs(position=-1)" in page
    assert " ".join(map(str, TOKENS[0])) in page
