"""Who may ask: requests to the right host, from the page itself, with the token."""

import hmac
from collections.abc import Sequence
from typing import Final

from dash import Dash
from flask import Flask, Response, abort, request

_FORBIDDEN: Final = "403: open the address that explaind-tf printed, with all of its path."


def guard(app: Dash, prefix: str, hosts: Sequence[str]) -> None:
    """Refuse all requests but those of the page itself, and tell the browser what the page may load.

    The name of the host is checked, since a stranger's name may be made to lead to this machine (DNS rebinding). The origin
    is checked, since any page may send requests to this machine. The token in the path is what strangers do not know.

    Parameters
    ----------
    app : dash.Dash
        The application.
    prefix : str
        The beginning of all its addresses, with the token: ``"/token/"``.
    hosts : sequence of str
        Names under which it is reached, with the port: ``"127.0.0.1:8050"``.
    """
    server: Flask = app.server
    policy = _policy(app)

    @server.before_request
    def check() -> None:
        origin = request.headers.get("Origin")
        is_known = request.headers.get("Host", "") in hosts
        is_own = origin is None or origin in {f"http://{host}" for host in hosts}
        has_token = hmac.compare_digest(request.path[: len(prefix)].encode(), prefix.encode())
        if not (is_known and is_own and has_token):
            abort(Response(_FORBIDDEN, 403, mimetype="text/plain"))

    @server.after_request
    def protect(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = policy
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        response.headers.setdefault("Cache-Control", "no-store")
        return response


def _policy(app: Dash) -> str:
    """Return what the page may load: nothing from elsewhere, and no script but Dash's own."""
    scripts = " ".join(f"'{one}'" if not one.startswith("'") else one for one in app.csp_hashes())
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src 'self' {scripts}",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )
