"""A few of the kills of `tests.recording.kills`, which can make any number of them."""

from pathlib import Path

import pytest

from tests.recording.kills import kill_one, resume_one

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.nightly(daily=False))])
def test_recording_killed_at_any_moment_keeps_its_steps_and_goes_on(tmp_path: Path, seed: int):
    run_dir, noted = tmp_path / "run", tmp_path / "noted"
    # Soon, as the time of what follows grows with the steps.
    steps = kill_one(run_dir, noted, seed, longest_wait=0.3)
    assert resume_one(run_dir, noted) > steps
