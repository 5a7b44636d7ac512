"""Figures show the ledger's own numbers: what is drawn adds up to the change, whatever is merged."""

import base64
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import xarray as xr

import explaind_tf  # noqa: F401 - registers the accessor
from explaind_tf import constants as names
from explaind_tf.report import figures, reductions
from explaind_tf.terms import label, terms_of
from tests.report.conftest import HOSTILE

INPUTS, OUTPUTS = 3, 2


def ledger(data: dict[str, Any], **coordinates: Any) -> xr.Dataset:
    """Return a ledger of three inputs and two outputs whose terms are random, over the dims that are given."""
    rng = np.random.default_rng(3)
    known = {"input": np.arange(INPUTS), "output": ["yes", "no"], **coordinates}
    terms = {
        term: (
            ("input", "output", *data.get(term, ())),
            rng.normal(size=(INPUTS, OUTPUTS, *(len(known[dim]) for dim in data.get(term, ())))),
        )
        for term in terms_of("recorded")
    }
    for zero in (names.CARRYOVER, names.EXTERNAL):
        terms[zero] = (terms[zero][0], 0 * terms[zero][1])
    found = xr.Dataset(terms, known, {"measurement": "log_prob", "tolerance": 1e-3})
    found[names.INITIAL] = ("input", "output"), rng.normal(size=(INPUTS, OUTPUTS))
    total = sum(
        found[t].sum([d for d in found[t].dims if d not in ("input", "output")]) for t in terms_of("recorded")
    )
    found[names.FINAL] = found[names.INITIAL] + total
    return found


def by_layer_and_step(steps: int = 6, layers: int = 3) -> xr.Dataset:
    split = dict.fromkeys((names.DATA, names.WEIGHT_DECAY), ("layer", "step"))
    return ledger(
        split | {names.RESIDUAL: ("step",)},
        layer=[f"layer {i}" for i in range(layers)],
        step=np.arange(steps),
    )


def change(found: xr.Dataset, **chosen: Any) -> float:
    moved = found[names.FINAL] - found[names.INITIAL]
    return float(moved.isel(input=chosen["input"]).sel(output=chosen["output"]) if chosen else moved.mean())


def without_steps(found: xr.Dataset, **chosen: Any) -> float:
    """Return the sum of the terms without a step axis, which no bar of a step shows."""
    terms = [term for term in terms_of("recorded") if "step" not in found[term].dims]
    return sum(float(reductions.of_prediction(found[term], **(chosen or NO_CHOICE))) for term in terms)


NO_CHOICE: dict[str, Any] = {"input": None, "output": None}


@pytest.mark.parametrize("chosen", [{}, {"input": 1, "output": "no"}])
@pytest.mark.parametrize("steps", [6, 1000])
@pytest.mark.parametrize("by", ["layer", "term"])
def test_steps_add_up_to_the_change(by: str, steps: int, chosen: dict[str, Any]):
    found = by_layer_and_step(steps)
    figure = found.explaind.plot.steps(by=by, **chosen)
    assert all(len(trace.y) <= 250 for trace in figure.data)
    drawn = sum(trace.y.sum() for trace in figure.data)
    np.testing.assert_allclose(drawn, change(found, **chosen) - without_steps(found, **chosen), rtol=1e-9)


def test_many_layers_are_put_together_and_still_add_up():
    found = by_layer_and_step(layers=20)
    figure = figures.steps(found)
    assert [trace.name for trace in figure.data][-2:] == ["13 other layers", label(names.RESIDUAL)]
    drawn = sum(trace.y.sum() for trace in figure.data)
    np.testing.assert_allclose(drawn, change(found) - without_steps(found), rtol=1e-9)


def test_a_layer_may_be_called_like_a_term():
    found = by_layer_and_step().assign_coords(layer=["residual", "data", "unexplained"])
    figure = figures.steps(found)
    assert [trace.name for trace in figure.data] == ["residual", "data", "unexplained", "unexplained"]
    np.testing.assert_allclose(
        sum(trace.y.sum() for trace in figure.data), change(found) - without_steps(found), rtol=1e-9
    )


def test_curves_are_drawn_over_the_same_steps():
    found = by_layer_and_step().isel(step=slice(2, 5))
    curves = xr.Dataset(
        {name: ("step", np.arange(6.0)) for name in ("loss", "learning_rate")}, {"step": np.arange(6)}
    )
    figure = figures.steps(found, curves=curves)
    lines = [trace for trace in figure.data if isinstance(trace, go.Scatter)]
    assert [list(line.y) for line in lines] == [[2, 3, 4]] * 2
    assert [list(line.x) for line in lines] == [[2, 3, 4]] * 2


def test_bins_keep_sums_and_name_their_steps():
    bins = reductions.bins_of(np.arange(10, 21), most=4)
    assert bins.labels == ["10–12", "13–15", "16–18", "19–20"]
    np.testing.assert_array_equal(bins.total(np.arange(11)), [3, 12, 21, 19])
    np.testing.assert_array_equal(bins.mean(np.arange(11)), [1, 4, 7, 9.5])


def test_layers_add_up_to_what_has_a_layer():
    found = by_layer_and_step()
    figure = found.explaind.plot.layers()
    drawn = sum(trace.x.sum() for trace in figure.data)
    meant = found.data.sum(["layer", "step"]) + found.weight_decay.sum(["layer", "step"])
    np.testing.assert_allclose(drawn, meant.mean(), rtol=1e-9)


def test_heat_map_has_the_numbers():
    found = by_layer_and_step()
    (cells,) = found.explaind.plot.layer_steps(input=0, output="yes").data
    meant = (found.data + found.weight_decay).isel(input=0).sel(output="yes").transpose("layer", "step")
    np.testing.assert_allclose(cells.z, meant, rtol=1e-6)  # drawn in float32
    assert cells.zmin == -cells.zmax


def test_groups_are_those_of_the_data():
    found = ledger({names.DATA: ("group", "step")}, group=["a", "b"], step=np.arange(4))
    (cells,) = found.explaind.plot.group_steps().data
    np.testing.assert_allclose(cells.z, found.data.mean(["input", "output"]), rtol=1e-6)


def test_balance_leads_from_before_to_after():
    found = ledger({})
    (bars,) = found.explaind.plot.balance(input=2, output="yes").data
    assert bars.measure[0] == "absolute"
    assert bars.measure[-1] == "total"
    np.testing.assert_allclose(sum(bars.x), found.final.isel(input=2).sel(output="yes"), rtol=1e-12)
    assert not any("momentum" in shown for shown in bars.y)  # it is zero
    assert label(names.RESIDUAL) in bars.y[-2]


def test_kernel_machine_misses_by_the_residual():
    found = ledger({})
    _, points = found.explaind.plot.kernel_machine().data
    np.testing.assert_allclose(points.y - points.x, -found.residual.values.reshape(-1), atol=1e-12)
    np.testing.assert_array_equal(points.x, found.final.values.reshape(-1))


def test_samples_of_both_signs_in_order():
    found = ledger({names.DATA: ("sample",)}, sample=[f"s{i}" for i in range(9)])
    influence = np.array([0.0, 3, -1, 2, -5, 1, -2, 4, -3])
    found.data[1, 0] = influence
    (bars,) = found.explaind.plot.samples(k=2, input=1, labels={"s7": "seven"}).data
    assert list(bars.x) == [4, 3, -3, -5]
    assert list(bars.customdata) == ["s7 seven", "s1", "s8", "s4"]


def tree(**variables: np.ndarray) -> xr.DataTree:
    root = ledger({})
    nodes = {
        name.replace("__", "/"): xr.Dataset(
            {"data": (("input", "output", *"abcd"[: v.ndim]), np.stack([[v] * 2] * 3))}
        )
        for name, v in variables.items()
    }
    return xr.DataTree.from_dict({"/": root.drop_vars(["data"]), **nodes})


def test_weights_of_a_layer_and_blocks_of_them():
    kernel, bias = np.random.default_rng(0).normal(size=(3, 100, 5)), np.ones(5)
    found = tree(dense__kernel=kernel, dense__bias=bias, other__kernel=bias)
    first, second = found.explaind.plot.weights("dense").data
    np.testing.assert_allclose(first.z.sum(), kernel.sum(), rtol=1e-5)
    assert first.z.shape == (75, 5)  # four rows of 300 are one
    assert list(first.y[:2]) == [0, 4]
    np.testing.assert_array_equal(second.z, [bias])
    with pytest.raises(ValueError, match=r"no weights of the layer 'den'.*dense/kernel"):
        found.explaind.plot.weights("den")


def test_labels_are_text_for_plotly():
    found = by_layer_and_step(layers=2).assign_coords(layer=[HOSTILE, "x"])
    for figure in (figures.layers(found), figures.heat_map(found, "layer"), figures.steps(found)):
        assert "<img" not in figure.to_json()
        assert "<script" not in figure.to_json()
    found = ledger({names.DATA: ("sample",)}, sample=[HOSTILE, "x"]).assign_attrs(measurement=HOSTILE)
    for figure in (figures.samples(found), figures.balance(found, unit=HOSTILE)):
        assert "<script" not in figure.to_json().replace("<br>", "")


def test_missing_axes_are_refused():
    found = ledger({})
    for draw, axis in (
        ("steps", "step"),
        ("layers", "layer"),
        ("layer_steps", "step"),
        ("samples", "sample"),
    ):
        with pytest.raises(ValueError, match=f"no {axis} axis"):
            getattr(found.explaind.plot, draw)()
    with pytest.raises(ValueError, match="no group axis"):
        by_layer_and_step().explaind.plot.group_steps()


def test_heat_maps_are_small():
    figure = figures.weights(tree(dense__kernel=np.ones((2000, 3000))), "dense")
    assert len(base64.b64encode(figure.data[0].z.tobytes())) < 60_000
