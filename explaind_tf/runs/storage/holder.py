"""`Holder`: which process holds a lock, as a file tells it, and whether that process has ended."""

import json
import os
import socket
import time
from dataclasses import asdict, dataclass, fields

import psutil

# Clocks of one machine may be set by so much while a process runs.
_START_SECONDS = 5.0


@dataclass(frozen=True)
class Holder:
    """A process that holds a lock.

    Attributes
    ----------
    token : str
        Identifies the lock that it holds: a process may hold several.
    host, namespace : str
        Its machine, and the container in it: process numbers mean nothing elsewhere.
    pid : int
        Its number there.
    started, renewed : float
        When it began, and when it last said that it still holds the lock, in seconds since 1970.
    """

    token: str
    host: str
    namespace: str
    pid: int
    started: float
    renewed: float

    @classmethod
    def here(cls, token: str) -> "Holder":
        """Return this process, now."""
        pid = os.getpid()
        return cls(token, socket.gethostname(), _namespace(), pid, _started(pid) or 0.0, time.time())

    @classmethod
    def decode(cls, data: bytes) -> "Holder":
        """Return the holder that a file names.

        Raises
        ------
        ValueError
            If the file does not name one.
        """
        body = json.loads(data)
        kinds = {field.name: field.type for field in fields(cls)}
        if not isinstance(body, dict) or set(body) != set(kinds):
            raise ValueError(f"it must be an object with {', '.join(kinds)}")
        for name, value in body.items():
            if type(value) is not kinds[name]:
                raise ValueError(f"{name} is {value!r:.50}")
        return cls(**body)

    def encode(self) -> bytes:
        """Return the file that names it."""
        return json.dumps(asdict(self), indent=1).encode()

    def is_here(self) -> bool:
        """Return whether it runs, or ran, where process numbers are those of this process."""
        return (self.host, self.namespace) == (socket.gethostname(), _namespace())

    def has_ended(self) -> bool:
        """Return whether it is known to have ended. Of processes elsewhere nothing is known."""
        if not self.is_here():
            return False
        started = _started(self.pid)
        return started is None or abs(started - self.started) > _START_SECONDS


def _started(pid: int) -> float | None:
    """Return when a process began, or None if there is none with this number."""
    try:
        process = psutil.Process(pid)
        # A process that was killed keeps its number until its parent has asked for its end.
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None


def _namespace() -> str:
    """Return what tells the process numbers of this container from those of others on the machine, where there are any."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        return ""
