"""`DirectoryLock`: it allows one writer per local directory, and is released however the writer ends."""

import errno
import fcntl
import os
import weakref
from pathlib import Path
from typing import Protocol

from explaind_tf.errors import OtherWriterError

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


class Lock(Protocol):
    """What keeps other writers out of a directory."""

    def acquire(self) -> None:
        """Take the lock, unless this object already holds it."""

    def require(self) -> None:
        """Check that the lock is still held."""

    def release(self) -> None:
        """Let other writers in."""


class DirectoryLock:
    """A lock on the directory itself. The operating system releases it when the process dies.

    The lock is advisory, and readers do not take it. On file systems without locks (some network ones) nothing is locked.

    Parameters
    ----------
    directory : Path
        An existing directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock, unless this object already holds it.

        Raises
        ------
        OtherWriterError
            If another writer holds it.
        """
        if self._descriptor is not None:
            return
        descriptor = os.open(self._directory, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise OtherWriterError(
                f"{self._directory} is being written to by another program or PathLogger. It can have only one writer: "
                f"write to another directory, or wait until the other one ends. If it is left over from an interrupted "
                f"fit() in this program, call the logger's close()."
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
        self._descriptor = descriptor
        # An interrupted training releases nothing: the lock is released when nothing refers to this object.
        self._close = weakref.finalize(self, os.close, descriptor)

    def require(self) -> None:
        """Check that the lock is still held. The operating system takes it from nobody."""

    def release(self) -> None:
        """Release the lock."""
        if self._descriptor is not None:
            self._close()
            self._descriptor = None
