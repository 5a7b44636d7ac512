"""Serves a session on this machine."""

import logging
import os
import secrets
import socket
import sys
import threading
from collections.abc import Callable
from typing import Final

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from explaind_tf.errors import RefusedError
from explaind_tf.explore.app import make_app
from explaind_tf.explore.guard import guard
from explaind_tf.explore.session import Session

LOCALHOST: Final = "127.0.0.1"
_NAMES: Final = (LOCALHOST, "localhost")
_TOKEN_BYTES: Final = 24
# A step of a sweep is not interrupted.
_PATIENCE: Final = 3.0


class _Quiet(WSGIRequestHandler):
    """Says nothing of each request: addresses hold the token."""

    def log(self, type: str, message: str, *args: object) -> None:
        """Log nothing."""


class Server:
    """A session on a port, which threads of their own serve until it is closed.

    Parameters
    ----------
    session : Session
        The session.
    host : str
        Address to bind. Any but that of this machine alone lets others in the network reach the page.
    port : int
        Port; 0 takes a free one.

    Attributes
    ----------
    url : str
        Address of the page, with its token. Who knows it sees the run's samples and can ask.
    """

    def __init__(self, session: Session, *, host: str = LOCALHOST, port: int = 0) -> None:
        self.session = session
        prefix = f"/{secrets.token_urlsafe(_TOKEN_BYTES)}/"
        app = make_app(session, prefix)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        # Opened here, since Werkzeug ends the program if a port is in use.
        try:
            self._socket = socket.create_server((host, port))
        except OSError as error:
            raise RefusedError(
                f"Port {port} of {host!r} cannot be used: {error.strerror}. Pass another --port, or leave it out for a free "
                f"one."
            ) from error
        self._server: BaseWSGIServer = make_server(
            host,
            port,
            app.server,
            threaded=True,
            request_handler=_Quiet,
            fd=self._socket.fileno(),
        )
        self.port: int = self._socket.getsockname()[1]
        hosts = [f"{name}:{self.port}" for name in (*_NAMES, *([host] if host not in _NAMES else []))]
        guard(app, prefix, hosts)
        self.url = f"http://{host}:{self.port}{prefix}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="explaind_tf page", daemon=True
        )

    def start(self) -> None:
        """Serve the page, and begin to load the model, unless the session began before."""
        self._thread.start()
        if not self.session.asker.is_alive:
            self.session.start()

    def close(self) -> bool:
        """Serve no more and compute no more. Return whether all threads ended."""
        self.stop()
        return self.session.asker.close(_PATIENCE)

    def stop(self) -> None:
        """Serve no more. The session goes on."""
        self._server.shutdown()
        self._server.server_close()
        self._socket.close()
        self._thread.join()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}: close() ends it>"

    def _repr_html_(self) -> str:
        return f'<a href="{self.url}" target="_blank" rel="noopener">Explore {self.port}</a>'


def serve(server: Server, opened: Callable[[str], object]) -> None:
    """Serve until the process is interrupted (Ctrl-C), and then end without a trace.

    Parameters
    ----------
    server : Server
        The server, not started.
    opened : callable
        Called with the address once the page is there.
    """
    server.start()
    try:
        opened(server.url)
        threading.Event().wait()
    except KeyboardInterrupt:
        if server.close():
            return
        # A thread within TensorFlow would end the interpreter with an error of C++.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    except BaseException:
        server.close()
        raise
