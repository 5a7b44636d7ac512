"""Graphs and manifest say the same of variables, inputs, targets and outputs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from explaind_tf.errors import RunFormatError
from explaind_tf.runs import RecordedRun
from tests.runs.damage import edit_manifest

pytestmark = pytest.mark.slow


def leaf(*shape: int | None, dtype: str = "float32") -> dict[str, Any]:
    return {"leaf": {"dtype": dtype, "shape": list(shape)}}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda body: body.update(inputs=leaf(4)),
            r"'forward' takes float32 of shape \(None, 3\) as tensor 5",
        ),
        (
            lambda body: body.update(inputs=leaf(None)),
            r"'forward' takes float32 of shape \(None, 3\) as tensor 5, .* of shape \(None, None\)",
        ),
        (lambda body: body.update(outputs=leaf(None)), r"'forward' returns .* of shape \(None, None\)"),
        (lambda body: body["loss"]["losses"].clear(), r"'loss_scales' returns .* of shape \(0,\)"),
        (lambda body: body.update(inputs=leaf(3, dtype="int32")), "'forward' takes float32.*int32"),
        (lambda body: body.update(inputs={"tuple": [leaf(3), leaf(3)]}), "'forward' takes 6 tensors.* 7"),
        (lambda body: body.update(outputs=leaf(3)), r"'forward' returns float32 of shape \(None, 2\)"),
        (lambda body: body.update(outputs=leaf()), r"'forward' returns .* of shape \(None,\)"),
        (lambda body: body.update(targets=leaf(1)), "'sample_losses' takes .* as tensor 6"),
        (lambda body: body.update(level="path"), "holds losses of samples, but the manifest says"),
    ],
)
def test_another_description_than_the_graphs(copied: Path, edit: Callable[[Any], Any], message: str):
    edit_manifest(copied, edit)
    with pytest.raises(RunFormatError, match=f"graphs.*{message}"):
        _ = RecordedRun(copied).graphs
