"""The experiment on keyframes: dense and sparse runs give one ledger."""

from pathlib import Path

import pytest

from experiments.keyframes.__main__ import CASES, compare


@pytest.mark.parametrize("case", [CASES[0], CASES[2]], ids=lambda case: case.name)
def test_keyframes_lose_nothing(tmp_path: Path, case):
    found = compare(case, tmp_path, steps=6, every=4, quick=True)
    assert (found.difference, found.drift) == (0, 0)
    assert found.size_ratio > 0
