"""Cosines between layers, and means of entries by label."""

import numpy as np
import pytest
import xarray as xr

from explaind_tf.analysis import cosines, layer_cosines, mean_by_label
from explaind_tf.analysis.similarity import OTHER_LAYER

pytestmark = pytest.mark.slow


def test_cosines_are_those_of_the_definition():
    rows = np.random.default_rng(0).normal(size=(4, 6))
    expected = [[a @ b / np.sqrt((a @ a) * (b @ b)) for b in rows] for a in rows]
    np.testing.assert_allclose(cosines(rows), expected, rtol=1e-12)


def test_a_row_of_zeros_has_no_direction():
    np.testing.assert_array_equal(cosines([[0, 0], [3, 0]]), [[0, 0], [0, 1]])


def influence() -> xr.DataArray:
    """Two layers that agree in steps 3 and 4 and are opposed in steps 5 and 6, and one that does something else."""
    together, apart = [[1.0, 2.0], [1.0, 2.0], [2.0, -1.0]], [[1.0, 2.0], [-1.0, -2.0], [2.0, -1.0]]
    values = np.array([together, together, apart, apart])  # step, layer, input
    return xr.DataArray(
        values[..., None],
        dims=("step", "layer", "input", "output"),
        coords={"step": [3, 4, 5, 6], "layer": ["a", "b", "c"]},
    )


def test_layers_by_window():
    found = layer_cosines(influence(), {"first": range(3, 5), "second": range(5, 7), "all": range(3, 7)})
    assert found.dims == ("window", "layer", OTHER_LAYER)
    pair = found.sel({"layer": "a", OTHER_LAYER: "b"})
    np.testing.assert_allclose(pair, [1, -1, 0], atol=1e-12)
    np.testing.assert_allclose(found.sel({"layer": "a", OTHER_LAYER: "c"}), 0, atol=1e-12)


def test_a_window_needs_steps():
    with pytest.raises(ValueError, match=r"'late'.*holds none of the 4 steps"):
        layer_cosines(influence(), {"late": range(7, 9)})


def test_means_by_label_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    values, labels = rng.normal(size=(2, 3, 9)), np.array([2, 0, 1, 2, 2, 0, 3, 1, 3])
    found = mean_by_label(values, labels, 4)
    for label in range(4):
        np.testing.assert_allclose(found[..., label], values[..., labels == label].mean(axis=-1), rtol=1e-12)


@pytest.mark.parametrize("labels", [[0, 0, 2], [0, 1, 3]])
def test_each_label_needs_a_sample(labels):
    with pytest.raises(ValueError, match="needs a sample"):
        mean_by_label(np.ones((1, 3)), np.array(labels), 3)
