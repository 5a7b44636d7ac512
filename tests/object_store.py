"""An object store on this machine: moto's S3, in which requests can be made to fail, to stall or to lose their answer."""

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import s3fs
from moto.server import DomainDispatcherApplication, create_backend_app
from upath import UPath
from werkzeug.serving import make_server

BUCKET = "bucket"
_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"

Environ = dict[str, Any]
# What to do with a request: None to answer it, one of the names of faults, or seconds to wait before the answer.
Plan = Callable[[str, str], str | float | None]
UNAVAILABLE, LOST = "unavailable", "lost"
# A client waits this long for an answer before it asks again: longer than a busy machine needs to give one.
ANSWER_SECONDS = 6.0


class ObjectStore:
    """A server of S3, in threads of this process.

    Attributes
    ----------
    plan : callable or None
        Decides by method and path of a request what becomes of it.
    requests : list of tuple of str
        Method and path of each request.
    """

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self.requests: list[tuple[str, str]] = []
        self._app = DomainDispatcherApplication(create_backend_app)
        self._one_at_a_time = threading.Lock()  # moto compares and replaces in two steps
        self._server = make_server("127.0.0.1", 0, self, threaded=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.requests.append((method, path))
        fault = None if self.plan is None else self.plan(method, path)
        if fault == UNAVAILABLE:
            body = b"" if method == "HEAD" else _SLOW_DOWN
            start_response("503 Slow Down", [("Content-Length", str(len(body)))])
            return [body]
        if isinstance(fault, float):
            time.sleep(fault)
        with self._one_at_a_time:
            answer = list(self._app(environ, start_response))
        if fault == LOST:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)  # otherwise the client waits for the answer
            raise ConnectionAbortedError("the answer is lost, as the test asks for")
        return answer

    @contextmanager
    def failing(self, plan: Plan) -> Iterator[None]:
        """Follow a plan for a while."""
        self.plan = plan
        try:
            yield
        finally:
            self.plan = None

    def close(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def use(patch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Have `s3://` mean a server on this machine, in this process and in those that it starts."""
    for name, value in environment(endpoint).items():
        patch.setenv(name, value)
    # Waits of some minutes, as for a store far away, would only hold up the tests.
    patch.setattr(s3fs.S3FileSystem, "read_timeout", ANSWER_SECONDS)
    patch.setattr(s3fs.S3FileSystem, "retries", 2)


def environment(endpoint: str) -> dict[str, str]:
    """Return the environment variables that `use` sets."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "2",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def objects(url: UPath) -> dict[str, bytes]:
    """Return the objects under a URL, by their name relative to it."""
    url.fs.invalidate_cache()
    found = url.fs.find(url.path) if url.exists() else []
    return {name.removeprefix(f"{url.path}/"): url.fs.cat_file(name) for name in found}


class First:
    """A plan by which the first requests for a path come to a fault, and all others are answered.

    Attributes
    ----------
    left : int
        Number of faults to come.
    """

    def __init__(self, count: int, fault: str | float, *, path: str, method: str = "PUT") -> None:
        self.left = count
        self._fault, self._path, self._method = fault, path, method

    def __call__(self, method: str, path: str) -> str | float | None:
        if method != self._method or self._path not in path or self.left == 0:
            return None
        self.left -= 1
        return self._fault
