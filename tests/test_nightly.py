"""The sample of nightly cases: the same for a seed, another for another, and in time every case."""

from tests.nightly import SHARE, sample_of

CASES = [f"case {k}" for k in range(50)]


def test_a_seed_decides_the_sample():
    assert sample_of(CASES, "2026-11-28") == sample_of(CASES, "2026-11-28")
    assert sample_of(CASES, "2026-11-28") != sample_of(CASES, "2026-11-29")


def test_each_sweep_has_its_share_and_one_case_at_least():
    assert len(sample_of(CASES, "2026-11-28")) == -(-len(CASES) // SHARE)
    assert sample_of(CASES[:1], "2026-11-28") == {CASES[0]}


def test_in_time_every_case_is_drawn():
    drawn = set().union(*(sample_of(CASES, f"day {k}") for k in range(100)))
    assert drawn == set(CASES)
