"""`DirectoryLock`: one writer to a run directory, however the writer ends."""

import errno
import fcntl
import os
import weakref
from pathlib import Path

from explaind_tf.errors import RefusedError

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


class DirectoryLock:
    """A lock on a directory itself, which the operating system lets go of when its process dies.

    It is advisory, and readers do not ask for it. On file systems without locks (some network ones) nothing is locked.

    Parameters
    ----------
    directory : Path
        An existing directory.

    Raises
    ------
    RefusedError
        If another writer holds it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None
        self.acquire()

    def acquire(self) -> None:
        """Take the lock, unless it is held by this object already."""
        if self._descriptor is not None:
            return
        descriptor = os.open(self._directory, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise RefusedError(
                f"{self._directory} is being written to by another PathLogger. A run has one writer: record into another "
                f"directory, or wait for the other to end. If it is left over from an interrupted fit() in this program, "
                f"call its close()."
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
        self._descriptor = descriptor
        # An interrupted training releases nothing: the lock goes with whoever holds this object.
        self._close = weakref.finalize(self, os.close, descriptor)

    def release(self) -> None:
        """Let go of the lock."""
        if self._descriptor is not None:
            self._close()
            self._descriptor = None
