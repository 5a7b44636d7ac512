"""Rank correlations, and bootstrap intervals of statistics."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata


@dataclass(frozen=True)
class Interval:
    """An estimate with its bootstrap percentile interval of 95 %."""

    value: float
    low: float
    high: float


def rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return Spearman's correlation of each row of two arrays; zero where a row is constant."""
    a, b = (rankdata(values, axis=1) - (values.shape[1] + 1) / 2 for values in (a, b))
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return (a * b).sum(axis=1) / np.where(scale > 0, scale, np.inf)


def bootstrap(
    statistic: Callable[..., float], counts: Sequence[int], seed: int, *, resamples: int = 500
) -> Interval:
    """Return a statistic with its percentile interval, each of its axes resampled with replacement.

    Parameters
    ----------
    statistic : callable
        Takes the chosen rows of each axis.
    counts : sequence of int
        Lengths of the axes.
    seed, resamples : int
        Seed and number of draws of the bootstrap.
    """
    rng = np.random.default_rng(seed)
    drawn = [statistic(*(rng.integers(0, count, count) for count in counts)) for _ in range(resamples)]
    # The statistic of a draw without one of the two classes is NaN.
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return Interval(statistic(*(np.arange(count) for count in counts)), float(low), float(high))
