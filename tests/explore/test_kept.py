"""Answers on disk: they come back as they were, up to a size, and what is damaged is found."""

import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from upath import UPath

from explaind_tf.explore.kept import Kept, place_of


def answer(value: float, size: int = 10) -> xr.Dataset:
    rng = np.random.default_rng(0)
    return xr.Dataset(
        {"data": (("input", "sample"), rng.normal(size=(1, size)) + value)},
        {"sample": np.array([f"s{i}" for i in range(size)], object), "movement": ("input", [1.0])},
        {"tolerance": 1e-3, "unexplained_steps": [3, 4], "nodes": np.int64(7)},
    )


def test_an_answer_comes_back_as_it_was(tmp_path: Path):
    kept = Kept(tmp_path / "answers", 10**9)
    assert kept.read("one") is None
    kept.write("one", answer(1.0))
    kept.write("one", answer(2.0))  # the first one stays
    found = kept.read("one")
    assert found is not None
    xr.testing.assert_equal(found, answer(1.0))
    assert found.attrs == answer(1.0).attrs
    assert found.sample.dtype == object


def test_the_oldest_go_first_above_the_limit(tmp_path: Path):
    kept = Kept(tmp_path, 10**9)
    kept.write("first", answer(1.0, 2000))
    size = sum(file.stat().st_size for file in (tmp_path / "first").rglob("*") if file.is_file())
    small = Kept(tmp_path, int(2.5 * size))
    small.write("second", answer(2.0, 2000))
    for name, age in (("first", 100), ("second", 200)):
        os.utime(tmp_path / name, (0, 10**9 - age))
    assert small.read("second") is not None  # so the first one is the oldest now
    small.write("third", answer(3.0, 2000))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["second", "third"]


def test_what_is_damaged_is_an_error_until_it_is_forgotten(tmp_path: Path):
    kept = Kept(tmp_path, 10**9)
    kept.write("one", answer(1.0))
    (tmp_path / "one" / "zarr.json").write_text("{")
    with pytest.raises((ValueError, KeyError, OSError)):
        kept.read("one")
    kept.forget("one")
    assert kept.read("one") is None


def test_what_a_killed_program_left_is_removed_later(tmp_path: Path):
    kept = Kept(tmp_path, 10**9)
    old, new = tmp_path / "a.0.partial", tmp_path / "b.0.partial"
    for path in (old, new):
        path.mkdir()
    os.utime(old, (0, 0))
    kept.clean()
    assert [path.name for path in tmp_path.iterdir()] == [new.name]


def test_answers_are_kept_beside_the_run(tmp_path: Path):
    (tmp_path / "run").mkdir()
    directory, where = place_of(tmp_path / "run", "id")
    assert (directory, where) == (tmp_path / "run.answers", "beside the run")


@pytest.mark.parametrize(
    ("run_dir", "why"),
    [
        (None, "no run directory"),
        (UPath("memory://runs/a"), "at a URL"),
        (Path("/a/run"), "cannot be written to"),
    ],
)
def test_answers_are_kept_in_the_cache_otherwise(
    run_dir: Path | None, why: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    directory, where = place_of(run_dir, "id")
    assert directory.parts[-2:] == ("answers", "id")
    assert why in where
