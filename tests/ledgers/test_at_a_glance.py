"""What a notebook shows of runs and ledgers."""

import html
import re

import pytest
import xarray as xr

import explaind_tf as xtf
from tests.helpers import Recorded, X


def text_of(shown: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", " ", shown))


@pytest.fixture(scope="module")
def run(small_run: Recorded) -> xtf.Run:
    return small_run.open()


@pytest.fixture(scope="module")
def ledger(run: xtf.Run) -> xr.Dataset:
    return run.attribute(X[:2], axes=("sample",), progress=False)


def test_a_run_says_what_it_is(run: xtf.Run):
    shown = text_of(run._repr_html_())
    for said in (run.run_id, "6", "level sample", "adamw", "float32(batch, 3)", "run.explore(x, y)"):
        assert said.lower() in shown.lower()


def test_a_ledger_says_whether_it_balances_and_what_is_strongest(ledger: xr.Dataset):
    shown = text_of(ledger.explaind._repr_html_())
    assert "holds: at most" in shown
    mean = ledger.data.mean(["input", "output"])
    best = str(mean.sample.values[mean.values.argmax()])
    worst = str(mean.sample.values[mean.values.argmin()])
    raised, _, lowered = shown.partition("that lowered it most")
    assert f"{best} ({float(mean.max()):+.3g})" in raised
    assert f"{worst} ({float(mean.min()):+.3g})" in lowered
    assert f"{float(ledger.explaind.total('data').mean()):+.4g}" in shown


def test_an_unbalanced_one_says_so(ledger: xr.Dataset):
    assert "does NOT hold" in text_of(ledger.assign_attrs(tolerance=1e-12).explaind._repr_html_())


def test_by_weight_and_without_axes(run: xtf.Run):
    by_weight = run.attribute(X[:1], axes=("parameter",), progress=False)
    assert "parameter" in text_of(by_weight.explaind._repr_html_())
    assert "cause alone" in text_of(run.attribute(X[:1], progress=False).explaind._repr_html_())


def test_hostile_ids_are_text(ledger: xr.Dataset):
    hostile = ledger.assign_coords(sample=[f"<script>{i}</script>" for i in range(ledger.sizes["sample"])])
    shown = hostile.explaind._repr_html_()
    assert "<script>" not in shown and "&lt;script&gt;" in shown
