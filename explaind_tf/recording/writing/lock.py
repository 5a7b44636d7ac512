"""`DirectoryLock`: it allows one writer per run directory, and is released however the writer ends."""

import errno
import fcntl
import os
import weakref
from pathlib import Path

from explaind_tf.errors import RefusedError

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


class DirectoryLock:
    """A lock on the directory itself. The operating system releases it when the process dies.

    The lock is advisory, and readers do not take it. On file systems without locks (some network ones) nothing is locked.

    Parameters
    ----------
    directory : Path
        An existing directory.

    Raises
    ------
    RefusedError
        If another writer holds the lock.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None
        self.acquire()

    def acquire(self) -> None:
        """Take the lock, unless this object already holds it."""
        if self._descriptor is not None:
            return
        descriptor = os.open(self._directory, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise RefusedError(
                f"{self._directory} is being written to by another PathLogger. A run can have only one writer: record into "
                f"another directory, or wait until the other logger ends. If it is left over from an interrupted fit() in "
                f"this program, call its close()."
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
        self._descriptor = descriptor
        # An interrupted training releases nothing: the lock is released when nothing refers to this object.
        self._close = weakref.finalize(self, os.close, descriptor)

    def release(self) -> None:
        """Release the lock."""
        if self._descriptor is not None:
            self._close()
            self._descriptor = None
