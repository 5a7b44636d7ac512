"""The clock: measures calls where counting passes does not decide which route is faster."""

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import tensorflow as tf

_Name = TypeVar("_Name", bound=str)

# The clock decides between counted costs that are within this factor of the lowest.
CLOSE = 2.5


def cheapest(
    costs: Mapping[_Name, float], clocked: Mapping[_Name, Callable[[], Any]], *, is_long: bool = True
) -> _Name:
    """Return the name of the lowest cost. If others are close to it and the work is long, the clock decides."""
    least = min(costs, key=lambda name: costs[name])
    close = [name for name, cost in costs.items() if cost <= CLOSE * costs[least]]
    return least if len(close) == 1 or not is_long else min(close, key=lambda name: seconds(clocked[name]))


def seconds(function: Callable[[], Any]) -> float:
    """Return how long a call takes, after a first call that may compile it."""
    _wait(function())
    start = time.perf_counter()
    _wait(function())
    return time.perf_counter() - start


def _wait(value: Any) -> None:
    if isinstance(value, tf.Tensor):
        value.numpy()
