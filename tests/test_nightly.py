"""The sample of nightly cases: the same for a seed, another for another, and in time every case."""

from tests.nightly import SHARE, sample_of

CASES = [f"case {k}" for k in range(50)]
DAYS = [f"day {k}" for k in range(2000)]


def test_a_seed_decides_the_sample():
    assert sample_of(CASES, "2026-11-28") == sample_of(CASES, "2026-11-28")
    assert sample_of(CASES, "2026-11-28") != sample_of(CASES, "2026-11-29")


def test_each_sweep_has_its_share():
    sizes = [len(sample_of(CASES, day)) for day in DAYS]
    assert set(sizes) == {len(CASES) // SHARE, len(CASES) // SHARE + 1}
    assert abs(sum(sizes) / len(DAYS) - len(CASES) / SHARE) < 0.1
    # A test with a single case has its days, too.
    assert 5 < sum(len(sample_of(CASES[:1], day)) for day in DAYS) < 35


def test_in_time_every_case_is_drawn():
    drawn = set().union(*(sample_of(CASES, day) for day in DAYS))
    assert drawn == set(CASES)
