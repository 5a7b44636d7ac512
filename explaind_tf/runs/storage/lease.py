"""`Lease`: it allows one writer per directory at a URL, where the operating system has no locks."""

import os
import threading
import time
import uuid
import weakref

from upath import UPath

from explaind_tf.errors import OtherWriterError
from explaind_tf.runs.storage.holder import Holder
from explaind_tf.runs.storage.objects import (
    ConflictError,
    Seen,
    create_object,
    read_object,
    remove_object,
    replace_object,
)

# The holder says so often that it is still there. One that has not said so for long may be taken for ended.
RENEWAL_SECONDS = 20.0
STALE_SECONDS = 120.0

# Others may take a lease, or let it go, between two requests of ours.
_ATTEMPTS = 5

# Tokens of the leases that this process holds.
_held: set[str] = set()


class Lease:
    """A lock in an object store: an object names the process that holds it, which renews it while it lives.

    A lease whose holder has ended is free. That is known at once of a process on the same machine, and of others when they
    have not renewed it for `STALE_SECONDS`. Clocks that differ may make a lease seem old that is not: what must not be
    lost has to be protected by :func:`~explaind_tf.runs.storage.objects.replace_object` as well.

    Parameters
    ----------
    path : UPath
        The object.
    of : str
        What is locked, for messages.
    """

    def __init__(self, path: UPath, of: str) -> None:
        self._path, self._of = path, of
        self._token = ""  # none is held
        self._is_lost = False
        self._guard = threading.Lock()

    def acquire(self) -> None:
        """Take the lease, unless this object already holds it.

        Raises
        ------
        OtherWriterError
            If another writer holds it.
        OSError
            If the store does not answer.
        """
        if self._token:
            return
        mine = Holder.here(uuid.uuid4().hex)
        self._take(mine.encode())
        self._token, self._is_lost = mine.token, False
        _held.add(mine.token)
        ended = threading.Event()
        # An interrupted training releases nothing: the lease ends when nothing refers to this object.
        self._end = weakref.finalize(self, _forget, mine.token, ended)
        threading.Thread(target=_renew, args=(weakref.ref(self), ended), name="lease", daemon=True).start()

    def _take(self, mine: bytes) -> None:
        for _ in range(_ATTEMPTS):
            try:
                found = read_object(self._path)
                if found is None:
                    create_object(self._path, mine)
                else:
                    self._refuse_held(found)
                    replace_object(self._path, mine, found.version)
                return
            except ConflictError:
                continue
        raise OtherWriterError(f"{self._of} is taken by other writers at this moment. It can have only one.")

    def _refuse_held(self, found: Seen) -> None:
        try:
            holder = Holder.decode(found.data)
        except ValueError as error:
            raise OtherWriterError(
                f"{self._path} should name the process that writes to {self._of}, and does not: {error}. If nothing writes "
                f"there, remove it."
            ) from error
        is_forgotten = holder.is_here() and holder.pid == os.getpid() and holder.token not in _held
        age = time.time() - holder.renewed
        if is_forgotten or holder.has_ended() or age > STALE_SECONDS:
            return
        ours = "It is this program: if an interrupted fit() left it, call the logger's close(). "
        raise OtherWriterError(
            f"{self._of} is being written to by process {holder.pid} on {holder.host}, which said so {age:.0f} seconds ago "
            f"in {self._path}. It can have only one writer: write to another directory, or wait until the other one ends. "
            f"{ours if holder.token in _held else ''}If it was killed, it counts as ended {STALE_SECONDS:.0f} seconds after "
            f"it last said so, on this machine at once."
        )

    def require(self) -> None:
        """Check that the lease is still held: a process that stood still for long may have lost it.

        Raises
        ------
        OtherWriterError
            If another writer has taken it.
        OSError
            If the store does not answer.
        """
        with self._guard:
            if self._is_lost or self._as_stored() is None:
                self._is_lost = True
                raise OtherWriterError(
                    f"{self._of} was taken over by another writer: {self._path} no longer names this one. It had not "
                    f"renewed it for {STALE_SECONDS:.0f} seconds, or the file was removed."
                )

    def _as_stored(self) -> Seen | None:
        """Return the object if it still names this holder."""
        found = read_object(self._path)
        try:
            return found if found is not None and Holder.decode(found.data).token == self._token else None
        except ValueError:
            return None

    def renew(self) -> None:
        """Say that this process still holds the lease.

        Raises
        ------
        OSError
            If the store does not answer.
        """
        with self._guard:
            if self._is_lost or not self._token:
                return
            found = self._as_stored()
            try:
                if found is not None:
                    replace_object(self._path, Holder.here(self._token).encode(), found.version)
            except ConflictError:
                found = None
            self._is_lost = found is None  # `require` tells

    def release(self) -> None:
        """Let other writers in.

        Raises
        ------
        OSError
            If the store does not answer. Others can then take the lease when it is stale.
        """
        if not self._token:
            return
        self._end()
        with self._guard:
            if not self._is_lost and self._as_stored() is not None:
                remove_object(self._path)
            self._token = ""


def _forget(token: str, ended: threading.Event) -> None:
    _held.discard(token)
    ended.set()


def _renew(reference: "weakref.ref[Lease]", ended: threading.Event) -> None:
    """Renew a lease until it is released, or nothing refers to it."""
    while not ended.wait(RENEWAL_SECONDS):
        lease = reference()
        if lease is None:
            return
        try:
            lease.renew()
        except OSError:
            continue  # the next time may succeed; until then commits check whether the lease is still held
        finally:
            del lease
