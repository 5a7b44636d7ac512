"""Every experiment's quick run works, and its results are kept."""

import dataclasses
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from experiments import results
from experiments.results import Findings, Image, Table, carry_out, choose, new_figure, spread
from tests.nightly import sweep

pytestmark = pytest.mark.slow

# Benchmarks measure durations and write their results in another form.
NAMES = sorted(
    path.parent.name
    for path in results.HERE.glob("*/__main__.py")
    if hasattr(importlib.import_module(f"experiments.{path.parent.name}.__main__"), "experiment")
)


@dataclasses.dataclass(frozen=True)
class Settings:
    steps: int = 3
    seeds: tuple[int, ...] = (0, 1)


def experiment(settings: Settings, runs_dir: Path) -> Findings:
    assert runs_dir.is_dir()
    figure = new_figure(3, 2)
    figure.subplots().plot(range(settings.steps))
    values = np.arange(settings.steps, dtype="float32")
    return Findings(
        title="A title",
        question="What is measured.",
        conclusions=["One thing.", "Another."],
        tables=[Table("A table", ("model", "value"), [("a|b", 0.12345), ("c", 12345.0)])],
        values={"mean": values.mean(), "all": values},
        images=[Image("line", "It rises", figure)],
        arrays=xr.Dataset({"values": ("step", values)}),
    )


# When Keras 3.15 saves weights, it copies variables to NumPy 2 in a deprecated way.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("name", sweep(NAMES, daily=False))
def test_quick_runs(tmp_path: Path, name):
    module = importlib.import_module(f"experiments.{name}.__main__")
    carry_out(name, module.experiment, module.QUICK, quick=True, out=tmp_path)
    found = json.loads((tmp_path / results.VALUES_FILE).read_text())
    assert found["quick"] and found["tables"] and found["values"] and found["conclusions"]
    assert all((tmp_path / image["file"]).stat().st_size < 200_000 for image in found["images"])


def test_results_hold_what_made_them(tmp_path: Path):
    out = carry_out("name", experiment, Settings(), quick=False, out=tmp_path / "name")
    found = json.loads((out / results.VALUES_FILE).read_text())
    assert found["settings"] == {"steps": 3, "seeds": [0, 1]}
    assert found["values"] == {"mean": 1, "all": [0, 1, 2]}
    assert len(found["provenance"]["commit"]) == 40
    assert found["provenance"]["versions"].keys() >= {"tensorflow", "keras", "explaind_tf"}
    with xr.open_zarr(out / results.ARRAYS_DIR, consolidated=False) as arrays:
        np.testing.assert_array_equal(arrays["values"], [0, 1, 2])
    text = (out / results.SECTION_FILE).read_text()
    assert "| a\\|b | 0.123 |" in text and "| c | 12,345 |" in text and "![It rises](line.png)" in text


def test_the_document_holds_full_runs_of_committed_code(tmp_path: Path):
    out = carry_out("name", experiment, Settings(), quick=False, out=tmp_path / "results/name")
    found = json.loads((out / results.VALUES_FILE).read_text())

    def assembled(is_clean: bool, quick: bool) -> str:
        changed = {**found, "quick": quick, "provenance": {**found["provenance"], "is_clean": is_clean}}
        (out / results.VALUES_FILE).write_text(json.dumps(changed))
        return results.assemble(tmp_path / "results")

    assert "![It rises](results/name/line.png)" in assembled(is_clean=True, quick=False)
    with pytest.raises(ValueError, match="Commit first"):
        assembled(is_clean=False, quick=False)
    with pytest.raises(ValueError, match="quick run"):
        assembled(is_clean=True, quick=True)


def test_the_document_is_that_of_the_results():
    assert results.RESULTS_FILE.read_text() == results.assemble()


def test_options_that_were_not_given_leave_the_settings():
    assert choose(Settings(), steps=None, seeds=[]) == Settings()
    assert choose(Settings(), steps=5, seeds=[7]) == Settings(5, (7,))


def test_spread_is_that_of_the_sample():
    assert spread([1.0, 3.0]) == "2 ± 1.4"
    assert spread([0.25]) == "0.25"
