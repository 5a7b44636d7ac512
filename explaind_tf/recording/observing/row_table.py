"""Rows by 64-bit keys, in few bytes for each of them."""

import numpy as np

NO_ROW = -1
_FIRST_PLACES = 1024
_PLACED = 2**14


class RowTable:
    """The rows of keys. The first key that was added has row 0, the next one row 1, and so on.

    A dictionary holds a Python object for each key and each row. Here a key takes 8 bytes, and the places of an
    open-addressed table, which say in which row it is, take 6 to 16. Keys must be digests: their lowest bits say where the
    search for them begins.
    """

    def __init__(self) -> None:
        self._keys = np.zeros(_FIRST_PLACES, np.int64)  # by row; those after the last row are not in use
        self._count = 0
        self._row_at = np.full(_FIRST_PLACES, NO_ROW, np.int32)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._count

    @property
    def byte_count(self) -> int:
        """Bytes of memory reserved."""
        return self._keys.nbytes + self._row_at.nbytes

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Return the row of each key, or ``NO_ROW``: int64 of shape (keys,)."""
        places = self._first_places(keys)
        rows = self._row_at[places].astype(np.int64)
        left = np.flatnonzero(self._is_another(rows, keys))
        while left.size:
            places[left] = self._next(places[left])
            rows[left] = self._row_at[places[left]]
            left = left[self._is_another(rows[left], keys[left])]
        return rows

    def rows_of(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the row of each key, and the positions of those that were new. These are added.

        Parameters
        ----------
        keys : np.ndarray
            int64, shape (keys,).

        Returns
        -------
        tuple of np.ndarray
            Rows, and positions in the order of their rows. A new key that occurs twice has the position of the first.
        """
        rows = self.find(keys)
        missing = np.flatnonzero(rows == NO_ROW)
        if not missing.size:
            return rows, missing
        new = missing[np.sort(np.unique(keys[missing], return_index=True)[1])]
        self.append(keys[new])
        rows[missing] = self.find(keys[missing])
        return rows, new

    def append(self, keys: np.ndarray) -> None:
        """Give each key the next row. If a key has one already, that one is still found."""
        first, stop = self._count, self._count + len(keys)
        if stop > len(self._keys):
            # Of what is reserved, only pages that were written take memory.
            kept, self._keys = self._keys, np.empty(max(stop, 2 * len(self._keys)), np.int64)
            self._keys[:first] = kept[:first]
        self._keys[first:stop] = keys
        self._count = stop
        if 3 * stop > 2 * len(self._row_at):
            self._row_at = np.full(1 << (2 * stop - 1).bit_length(), NO_ROW, np.int32)
            first = 0
        # In pieces, since the work takes several times the memory of the rows at hand.
        for start in range(first, stop, _PLACED):
            self._place(np.arange(start, min(start + _PLACED, stop)))

    def _place(self, rows: np.ndarray) -> None:
        """Enter rows at the first free places for their keys."""
        places, left = self._first_places(self._keys[rows]), np.arange(len(rows))
        while left.size:
            free = left[self._row_at[places[left]] == NO_ROW][::-1]
            self._row_at[places[free]] = rows[
                free
            ]  # where several want one place, the last one written has it: the first
            left = left[self._row_at[places[left]] != rows[left]]
            places[left] = self._next(places[left])

    def _is_another(self, rows: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Return which keys met the row of a different key."""
        return (rows != NO_ROW) & (self._keys[rows] != keys)

    def _first_places(self, keys: np.ndarray) -> np.ndarray:
        return keys & (len(self._row_at) - 1)

    def _next(self, places: np.ndarray) -> np.ndarray:
        return (places + 1) & (len(self._row_at) - 1)
