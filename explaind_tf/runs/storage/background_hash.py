"""What is done about a file's bytes beside the thread that writes them."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

Pieces = Sequence[bytes | np.ndarray]

# Less than this is hashed sooner than it is handed over.
_SMALL_BYTES = 2**15
# Written between two times that the page cache is told to let go.
_CACHED_BYTES = 2**21


class BackgroundHash:
    """Hashes what was written to a file, and has the operating system's cache give it up, while training goes on.

    Not while it is written: the two threads would wait for each other's turn at Python's lock, piece by piece, and the
    writing of 1.2 MB took twice as long.

    Nobody reads a record soon, and a long run would push the data that it trains on out of the page cache. On a virtual
    machine whose memory is lent page by page, each page that was new to the cache took 9 µs: 0.4 GB/s instead of 4.

    Parameters
    ----------
    file : int
        Its descriptor, open until :meth:`wait` has returned for the last time.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._cached_bytes = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="background_hash")
        self._pending: Future[None] | None = None

    def take(self, pieces: Pieces) -> None:
        """Take the next pieces of the file, which are written; they must not be changed from now on.

        The ones before are done with first, so that pieces of one call are all that is held.
        """
        self.wait()
        if sum(len(piece) for piece in pieces) < _SMALL_BYTES:
            self._work(pieces)
        else:
            self._pending = self._thread.submit(self._work, pieces)

    def wait(self) -> None:
        """Return when nothing is left to do of what was taken."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    @property
    def sha256(self) -> str:
        """SHA-256 of all that was taken, as hexadecimal digits."""
        self.wait()
        return self._hash.hexdigest()

    def _work(self, pieces: Pieces) -> None:
        for piece in pieces:
            self._hash.update(piece.data if isinstance(piece, np.ndarray) else piece)
            self._cached_bytes += len(piece)
        if self._cached_bytes >= _CACHED_BYTES and hasattr(os, "posix_fadvise"):
            # What is not on the disk yet is sent there, and given up the next time.
            os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_DONTNEED)
            self._cached_bytes = 0
