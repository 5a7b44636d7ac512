"""A section of the report whose texts are all hostile."""

from typing import Any

import keras
import numpy as np
import pytest

from explaind_tf import measurements
from explaind_tf.report import Example, Section
from tests.helpers import LABELS, Recorded, X, record

HOSTILE = "<script>alert('x')</script> & \"<img src=http://evil.example/x.png>"


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    ids = [HOSTILE, *(f"sample {i}" for i in range(9))]
    layers = [keras.layers.Dense(3, activation="tanh", name="output"), keras.layers.Dense(2)]
    return record(tmp_path_factory.mktemp("report") / "run", layers, ids=ids)


@pytest.fixture(scope="session")
def section(recorded: Recorded) -> Section:
    run = recorded.open()
    few, log_prob = X[:2], measurements.log_prob(LABELS[:2])
    groups = [HOSTILE if i % 2 else "even" for i in range(len(run.samples.ids))]

    def ledger(x: np.ndarray, measurement: Any, *axes: str, **options: Any) -> Any:
        return run.attribute(x, measurement, axes=axes, progress=False, **options)

    return Section(
        title=HOSTILE,
        introduction=HOSTILE,
        run=run,
        curves=run.curves(progress=False),
        balance=ledger(X, measurements.outputs()),
        unit=HOSTILE,
        path=ledger(few, log_prob, "layer", "step"),
        samples=ledger(few, log_prob, "sample"),
        weights=ledger(few, log_prob, "parameter"),
        groups=ledger(few, log_prob, "group", "step", groups=groups),
        grouped_by=HOSTILE,
        inputs=[
            Example(HOSTILE, table=[(HOSTILE, HOSTILE)]),
            Example("a picture", np.full((4, 4, 1), 0.5)),
        ],
        predictions=[HOSTILE, "right"],
        show_sample=lambda sample_id: Example(f"shown {sample_id}", np.zeros((4, 4, 3))),
        top=10,
    )
