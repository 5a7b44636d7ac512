"""Compiled functions that models share: what was traced for one serves all that compute the same."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

_Value = TypeVar("_Value")


class Shared(Generic[_Value]):
    """The values that were used last, by key.

    Parameters
    ----------
    most : int
        How many are kept. Each holds the graphs that it has compiled.
    """

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._values: OrderedDict[Hashable, _Value] = OrderedDict()

    def get(self, key: Hashable | None, make: Callable[[], _Value]) -> _Value:
        """Return the value of a key, made if it is not there; without a key, always a new one."""
        if key is None:
            return make()
        with self._lock:
            if key not in self._values:
                self._values[key] = make()
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)
            return self._values[key]
