"""Hashing of a file's bytes in a thread of its own, beside the thread that writes them."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

Pieces = Sequence[bytes | np.ndarray]

# Hashing fewer bytes than this takes less time than handing them to the thread.
_SMALL_BYTES = 2**15
# Bytes hashed between two requests that the page cache drop the file.
_CACHED_BYTES = 2**21


class BackgroundHash:
    """Hashes what was written to a file, and drops it from the page cache, while training continues.

    It does not hash while the file is being written. The two threads would wait for Python's lock piece by piece, and
    writing 1.2 MB took twice as long.

    Records are not read again soon. Without dropping them, a long run would push its training data out of the page
    cache. On a virtual machine that gets its memory page by page, each new page in the cache took 9 µs: 0.4 GB/s instead
    of 4.

    Parameters
    ----------
    file : int
        Descriptor of the file. It must stay open until :meth:`wait` has returned for the last time.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._cached_bytes = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="background_hash")
        self._pending: Future[None] | None = None

    def take(self, pieces: Pieces) -> None:
        """Hash the next pieces of the file. They are already written, and must not be changed from now on.

        This first waits for the previous pieces, so only the pieces of one call are held in memory.
        """
        self.wait()
        if sum(len(piece) for piece in pieces) < _SMALL_BYTES:
            self._work(pieces)
        else:
            self._pending = self._thread.submit(self._work, pieces)

    def wait(self) -> None:
        """Wait until all pieces taken so far are hashed."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    @property
    def sha256(self) -> str:
        """SHA-256 of all pieces taken so far, as hexadecimal digits."""
        self.wait()
        return self._hash.hexdigest()

    def _work(self, pieces: Pieces) -> None:
        for piece in pieces:
            self._hash.update(piece.data if isinstance(piece, np.ndarray) else piece)
            self._cached_bytes += len(piece)
        if self._cached_bytes >= _CACHED_BYTES and hasattr(os, "posix_fadvise"):
            # Pages that are not on the disk yet are sent there now, and dropped the next time.
            os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_DONTNEED)
            self._cached_bytes = 0
