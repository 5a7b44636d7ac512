"""The nightly lane: wide sweeps run whole by ``pytest -m nightly``, and as a sample of the day otherwise.

The sample is drawn from the cases of each test, so that each sweep has a part in it. It is the same in every process of one
day. ``EXPLAIND_TF_SEED=2026-11-28 pytest`` repeats that of another day.
"""

import datetime
import os
import random
from collections.abc import Collection, Hashable, Iterable
from typing import Any, TypeVar

import pytest

SEED = "EXPLAIND_TF_SEED"
# One of so many cases is run each day. There are some 700, of some seven seconds each: a day's sample takes about a minute.
SHARE = 100

_Case = TypeVar("_Case", bound=Hashable)


def sample_of(cases: Iterable[_Case], seed: str) -> set[_Case]:
    """Return one of every `SHARE` cases by a seed. What is left of the division is rounded up on that share of the days."""
    ordered, rng = list(cases), random.Random(seed)
    whole, rest = divmod(len(ordered), SHARE)
    return set(rng.sample(ordered, whole + (rng.random() * SHARE < rest)))


def sweep(cases: Iterable[str], *, core: Collection[str] = (), daily: bool = True) -> list[Any]:
    """Return the cases of a wide sweep as parameters: the core runs every time, the others at night.

    With ``daily=False`` no day's sample has them: cases of more than some 15 seconds, so that each day costs about the same.
    """
    names = list(cases)
    assert set(core) <= set(names), f"not among the cases: {set(core) - set(names)}"
    mark = pytest.mark.nightly(daily=daily)
    return [name if name in core else pytest.param(name, marks=mark) for name in names]


def pytest_configure(config: pytest.Config) -> None:
    """Set the seed where it is not set; the workers of pytest-xdist inherit it."""
    os.environ.setdefault(SEED, datetime.date.today().isoformat())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the nightly cases that the sample does not hold, unless tests are asked for by name."""
    nightly = [item for item in items if item.get_closest_marker("nightly")]
    for item in nightly:
        item.add_marker("slow")  # not for the fast lane
    by_name = config.option.keyword or any("::" in argument for argument in config.args)
    if by_name or "nightly" in config.option.markexpr:
        return
    sweeps: dict[str, list[str]] = {}
    for item in nightly:
        if not item.get_closest_marker("nightly").kwargs.get("daily", True):
            continue
        sweeps.setdefault(item.nodeid.partition("[")[0], []).append(item.nodeid)
    kept = {case for name, cases in sweeps.items() for case in sample_of(cases, f"{os.environ[SEED]} {name}")}
    left_out = [item for item in nightly if item.nodeid not in kept]
    config.hook.pytest_deselected(items=left_out)
    gone = set(left_out)
    items[:] = [item for item in items if item not in gone]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the sample of nightly cases, so that it can be run again."""
    terminalreporter.write_line(f"Sample of the nightly cases: {SEED}={os.environ[SEED]} repeats it.")
