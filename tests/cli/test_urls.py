"""Commands on a run at a URL answer as they do on the directory."""

import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import xarray as xr
from typer.testing import Result
from upath import UPath

from explaind_tf.runs.storage.files import remove_tree

pytestmark = pytest.mark.slow

Call = Callable[..., Result]


@pytest.fixture(scope="module")
def run_url(logits_run: Path) -> Iterator[str]:
    """Copy the run to memory."""
    url = UPath(f"memory://{uuid.uuid4().hex}/run")
    for path in logits_run.rglob("*"):
        if path.is_file():
            (url / path.relative_to(logits_run).as_posix()).write_bytes(path.read_bytes())
    yield str(url)
    remove_tree(url.parent)


def test_info(call: Call, logits_run: Path, run_url: str):
    found, local, wanted = (
        json.loads(call("info", run, "--json").stdout) for run in (run_url, logits_run.as_uri(), logits_run)
    )
    assert local == wanted
    assert found == wanted | {"run": run_url}
    assert run_url in call("info", run_url).stdout


def test_verify(call: Call, run_url: str):
    result = call("verify", run_url)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"{run_url} is fine: 6 steps" in result.stdout


def test_estimate(call: Call, logits_run: Path, run_url: str):
    """The free space at a URL is not known."""
    found, wanted = (
        json.loads(call("estimate", run, "--steps", 10**15, "--json").stdout) for run in (run_url, logits_run)
    )
    assert found["bytes"] == wanted["bytes"]
    assert (found["free_bytes"], found["share_of_free"], found["fits"]) == (None, None, None)
    line = call("estimate", run_url, "--steps", 10**15)
    assert (line.exit_code, "free disk" in line.stdout) == (0, False)


def test_attribute(call: Call, run_url: str, npz: Path):
    out = f"{run_url.rsplit('/', 1)[0]}/ledger.zarr"
    arguments = ("attribute", run_url, "--inputs", npz, "--axes", "layer", "--out", out)
    result = call(*arguments, "--json")
    assert (result.exit_code, json.loads(result.stdout)["out"]) == (0, out)
    assert f"Ledger: {out}" in result.stderr
    assert xr.open_zarr(out, consolidated=False).sizes["layer"] == 2
    assert call(*arguments).exit_code == 0  # the ledger is there already


# Ledgers of a run at a URL, as a report asks for them, are those of `test_attribute`.
@pytest.mark.nightly
def test_report(call: Call, run_url: str, npz: Path, tmp_path: Path):
    out = tmp_path / "report.html"
    result = call("report", run_url, "--inputs", npz, "--rows", "0:3", "--shown", 1, "--out", out)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "input 0" in out.read_text()


@pytest.mark.parametrize(
    ("run", "code", "message"),
    [
        ("memory://nothing/there", 3, "memory://nothing/there is not a recorded run"),
        ("nosuch://runs/a", 1, "nosuch://runs/a cannot be reached"),
    ],
)
def test_no_run(call: Call, run: str, code: int, message: str):
    result = call("info", run)
    assert result.exit_code == code
    assert message in result.stderr
