"""Only the page itself is answered: with the token, under the machine's own name, from its own origin."""

import http.client
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from explaind_tf.errors import RefusedError
from explaind_tf.explore.inputs import stored_samples
from explaind_tf.explore.opening import make_session
from explaind_tf.explore.server import Server
from explaind_tf.runs import RecordedRun


@pytest.fixture(scope="module")
def server(image_run: Path) -> Iterator[Server]:
    """A page whose model is never loaded."""
    reader = RecordedRun(image_run)
    session = make_session(reader, stored_samples(reader))
    session.start = lambda: None  # type: ignore[method-assign]
    found = Server(session)
    found.start()
    yield found
    assert found.close()


def ask(
    server: Server, path: str, *, method: str = "GET", body: str | None = None, **headers: str
) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    found = answer.status, answer.read().decode("utf-8", "replace")
    connection.close()
    return found


def test_the_page_is_there_before_the_model(server: Server):
    path = urlsplit(server.url).path
    assert ask(server, path)[0] == 200
    status, layout = ask(server, f"{path}_dash-layout")
    assert status == 200 and "Skip to the inputs" in layout
    own = f"http://127.0.0.1:{server.port}"
    assert ask(server, f"{path}_dash-layout", Origin=own)[0] == 200
    assert ask(server, f"{path}_dash-layout", Host=f"localhost:{server.port}")[0] == 200


@pytest.mark.parametrize(
    "end", ["", "_dash-layout", "_dash-dependencies", "save/answer.csv", "assets/x", "_favicon.ico"]
)
def test_others_are_refused(server: Server, end: str):
    path = urlsplit(server.url).path
    port = server.port
    token = path.strip("/")
    assert ask(server, f"{path}{end}", Host=f"evil.example:{port}")[0] == 403
    assert ask(server, f"{path}{end}", Host="127.0.0.1")[0] == 403, "without the port"
    assert ask(server, f"{path}{end}", Origin="http://evil.example")[0] == 403
    assert ask(server, f"{path}{end}", Origin="null")[0] == 403
    assert ask(server, f"{path}{end}", Origin=f"http://127.0.0.1:{port + 1}")[0] == 403
    for wrong in (
        "/",
        f"/{end}",
        f"/{token[:-1]}/{end}",
        f"/{token}x/{end}",
        f"/{token.lower()}!/{end}",
        f"//{end}",
    ):
        status, said = ask(server, wrong)
        assert status == 403 and token not in said


def test_callbacks_are_refused_without_the_token_or_from_elsewhere(server: Server):
    path = urlsplit(server.url).path
    update = {"method": "POST", "body": "{}", "Content_Type": "application/json"}
    assert ask(server, "/_dash-update-component", **update)[0] == 403
    assert ask(server, f"{path}_dash-update-component", Origin="http://evil.example", **update)[0] == 403


def test_no_path_leads_out(server: Server):
    path = urlsplit(server.url).path
    for end in (
        "assets/../../setup.py",
        "assets/%2e%2e/%2e%2e/setup.py",
        "_dash-component-suites/dash/../../../etc/passwd",
        "_dash-component-suites/explaind_tf/constants.py",
        "save/..%2f..%2fmanifest.json",
    ):
        # Dash answers addresses that it does not know with the page itself.
        status, said = ask(server, f"{path}{end}")
        assert status in (200, 400, 404, 500)
        assert (
            "root:" not in said and "VERSION" not in said and "setup(" not in said and '"run_id"' not in said
        )


def test_what_the_browser_is_told(server: Server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", urlsplit(server.url).path)
    headers = connection.getresponse().headers
    connection.close()
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    scripts = next(part for part in policy.split("; ") if part.startswith("script-src"))
    assert "unsafe" not in scripts and "http" not in policy
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in headers


def test_tokens_differ(server: Server, image_run: Path):
    reader = RecordedRun(image_run)
    other = Server(make_session(reader, stored_samples(reader)))
    assert len(urlsplit(other.url).path) > 30
    assert urlsplit(other.url).path != urlsplit(server.url).path
    other.session.start = lambda: None  # type: ignore[method-assign]
    other.start()
    assert other.close()


def test_a_port_in_use_is_refused(server: Server):
    with pytest.raises(RefusedError, match=rf"Port {server.port} .* in use.*--port"):
        Server(server.session, port=server.port)
