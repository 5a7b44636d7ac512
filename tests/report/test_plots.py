"""``ledger.explaind.plot`` after a plain import: plotly is loaded at the first figure and not before."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys
import numpy as np, xarray as xr
from explaind_tf import terms

zero = xr.DataArray(np.zeros((1, 1)), dims=("input", "output"))
variables = dict.fromkeys((*terms.terms_of("recorded"), "initial", "final"), zero)
ledger = xr.Dataset(variables, {"input": [0], "output": [0], "movement": ("input", [0.0])})
for found in (ledger, xr.DataTree(ledger)):
    found.explaind.check(1.0)
assert "plotly" not in sys.modules
for found in (ledger, xr.DataTree(ledger)):
    assert type(found.explaind.plot).__name__ == "LedgerPlots"
    assert type(found.explaind.plot.balance()).__name__ == "Figure"
assert "plotly" in sys.modules
"""


def test_plotly_is_loaded_at_the_first_figure(tmp_path: Path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
