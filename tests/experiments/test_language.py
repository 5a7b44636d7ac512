"""The arithmetic of the language experiment on small arrays; its quick run is in test_results.py."""

import numpy as np
import pytest
import xarray as xr

from experiments.language import layers, report
from experiments.language.continuations import Continuation, account, pose, same_places
from experiments.language.corpus_training import QUICK, Settings, make_model
from explaind_tf.datasets import Windows

pytestmark = pytest.mark.slow

BLOCKS = 3


def parts_of(values: np.ndarray) -> xr.DataArray:
    """Return values (input, component, step) in the form that influence() returns."""
    return xr.DataArray(
        values, dims=("input", "component", "step"), coords={"component": layers.components(BLOCKS)}
    )


def windows(*texts: bytes) -> Windows:
    rows = np.array([list(text) for text in texts], np.int32)
    return Windows(rows[:, :-1], rows[:, 1:], np.array([f"file.py:{i}" for i in range(len(rows))]))


def test_every_layer_of_the_model_has_a_part():
    names = [v.path.split("/")[0] for v in make_model(QUICK).trainable_variables]
    assert {layers.component(name) for name in names} == set(layers.components(QUICK.blocks))
    assert layers.component("block2_mlp_in") == layers.component("block2_mlp_out") == "MLP 2"
    assert layers.component("block2_mlp_norm") == layers.component("final_norm") == "norms"
    assert layers.component("position_embedding") == "embedding"


def test_blocks_are_outer_or_inner():
    assert layers.members("outer MLP", 6) == ["MLP 0", "MLP 5"]
    assert layers.members("inner attention", 6) == [f"attention {b}" for b in (1, 2, 3, 4)]


def test_checkpoints_divide_the_steps():
    for settings in (Settings(), QUICK):
        assert not any(settings.steps % every for every in (settings.save_every, *settings.thinned))
        assert not any(every % settings.save_every for every in settings.thinned)
        assert settings.blocks > 2  # otherwise there are no inner blocks


def test_agreement():
    rng = np.random.default_rng(0)
    recorded = parts_of(rng.normal(size=(2, 9, 6)))
    exact = layers.binned(recorded, 3)
    assert exact.shape == (2, 9, 2)
    np.testing.assert_allclose(exact.values[..., 1], recorded.values[..., 3:].sum(axis=-1))
    found = layers.agreement(3, exact, recorded)
    assert (found.every, found.entries) == (3, 36)
    assert found.correlation == pytest.approx(1)
    assert found.relative_difference == pytest.approx(0, abs=1e-12)
    assert found.mean_relative_difference == pytest.approx(0, abs=1e-12)
    doubled = layers.agreement(3, 2 * exact, recorded)
    assert doubled.correlation == pytest.approx(1)
    assert doubled.relative_difference == pytest.approx(1)
    assert doubled.mean_relative_difference == pytest.approx(1)
    assert doubled.attention == pytest.approx(2 * found.attention)
    # A gain of one input and an equal loss of another do not change their mean.
    opposite = exact.copy(data=exact.values + np.array([1.0, -1.0])[:, None, None])
    assert layers.agreement(3, opposite, recorded).mean_relative_difference == pytest.approx(0, abs=1e-12)


def test_kinds_are_sums_over_blocks():
    totals = parts_of(np.arange(9.0)[None, :, None]).isel(input=0, step=0)
    assert layers.by_kind(totals) == {
        "attention": 1 + 3 + 5,
        "MLP": 2 + 4 + 6,
        "embedding": 0,
        "unembedding": 7,
        "norms": 8,
    }


def test_shares_do_not_let_windows_cancel():
    values = np.zeros((2, 9, 1))
    values[:, 1, 0] = (1, -1)  # attention 0
    values[:, 2, 0] = (1, 1)  # MLP 0
    share = layers.shares(parts_of(values))
    assert share.sel(component="attention 0") == share.sel(component="MLP 0") == 0.5


def test_phases_are_parted_by_what_was_learned():
    values = np.zeros((1, 9, 6))
    values[0, 2] = (4, 4, 0, 1, 0, 0)  # MLP 0, outer
    values[0, 3] = (0, 1, 1, 3, 1, 1)  # attention 1, inner
    parts = parts_of(values)
    stages = layers.stages_of(parts)
    # The rise after each of the six steps is 4, 9, 10, 14, 15 and 16 of 16.
    assert stages == {"early": range(0, 2), "middle": range(2, 5), "late": range(5, 6)}
    found = layers.phases(layers.shares(parts), stages, 1, BLOCKS)
    assert found.early_leader == "outer MLP"
    assert found.share["early"]["outer MLP"] == pytest.approx((1 + 0.8) / 2 / 2)
    assert found.share["early"]["inner attention"] == pytest.approx(0.1)
    assert found.share["middle"]["inner attention"] == pytest.approx((1 + 0.75 + 1) / 3)
    assert found.share["late"] == {"outer MLP": 0, "inner MLP": 0, "outer attention": 0, "inner attention": 1}
    # The second of three intervals of two steps, and half of the third, lie in the middle stage.
    coarse = layers.phases(layers.shares(layers.binned(parts, 2)), stages, 2, BLOCKS)
    assert coarse.share["early"] == {
        "outer MLP": 8 / 9 / 2,
        "inner MLP": 0,
        "outer attention": 0,
        "inner attention": 1 / 9,
    }
    assert coarse.share["middle"]["inner attention"] == pytest.approx((0.8 + 0.8 + 1) / 3)


def test_no_stage_is_empty():
    values = np.zeros((1, 9, 3))
    values[0, 0] = (1, 0, 0)
    assert layers.stages_of(parts_of(values)) == {
        "early": range(0, 1),
        "middle": range(1, 2),
        "late": range(2, 3),
    }


def test_continuations_are_spelled_at_the_beginning():
    found = pose((Continuation("ab", "cd"), Continuation("too long", "xy")), 4)
    assert bytes(found.x[0].tolist()) == b"abcd" and bytes(found.y[0].tolist()) == b"bcd\0"
    np.testing.assert_array_equal(found.asked[0], [0, 1, 1, 0])
    assert bytes(found.x[1].tolist()) == b"ongx" and bytes(found.y[1].tolist()) == b"ngxy"
    np.testing.assert_array_equal(found.asked[1], [0, 0, 1, 1])


def test_same_places_are_those_of_a_search():
    texts = (b"self.x = self", b"lfelf, elves!", b"nothing there")
    same, same_target = same_places(windows(*texts), Continuation("(se", "lf"))
    for row, text in enumerate(texts):
        for position in range(12):
            end = position + 2  # in the text, of what is predicted at this position
            assert same[row, position] == (end >= 3 and text[end - 3 : end] in (b"sel", b"elf"))
            assert same_target[row, position] == (text[end - 1 : end] in (b"l", b"f"))


def test_an_account_adds_up():
    train = windows(b"(self", b"nosel", b"other")
    influence = np.array([[0.0, 0, 3, 2], [0, 0, 0, 1], [-1, 0, -1, 0]])
    order = [2, 0, 1]  # samples are found by their ids
    ledger = xr.Dataset(
        {
            "initial": (("input", "output"), [[-5.0]]),
            "final": (("input", "output"), [[-1.0]]),
            "data": (("input", "output", "sample", "token"), influence[order][None, None]),
        },
        {"sample": train.ids[order]},
    )
    found = account(ledger, 0, Continuation("(se", "lf"), train, shown=2)
    assert (found.initial, found.final, found.data) == (-5, -1, 4)
    assert (found.pushed, found.pulled) == (6, -2)
    assert found.same_tokens == 3 / 12 and found.same_influence == 6 / 4 and found.lift == 6
    assert found.top_windows_influence == 5 / 4  # of one window
    assert [source.id for source in found.sources] == ["file.py:0", "file.py:1"]
    assert found.sources[0].text == b"self"
    nowhere = account(ledger, 0, Continuation("qqq", "q"), train, shown=1)
    assert nowhere.lift is None and nowhere.same_influence == 0


def test_the_report_shows_bytes_as_text():
    window = np.frombuffer("a = 1\nb".encode("latin-1"), np.uint8).astype(np.int32)
    assert report.show([window], None).text == "a = 1⏎b"
