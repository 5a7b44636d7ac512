"""Fixtures of the tests of run directories."""

import shutil
from pathlib import Path

import pytest

from tests.helpers import Recorded


@pytest.fixture
def copied(small_run: Recorded, run_dir: Path) -> Path:
    """A complete run that may be damaged."""
    shutil.copytree(small_run.run_dir, run_dir)
    return run_dir
