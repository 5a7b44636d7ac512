"""The site builds without a warning, and a reader's browser asks no other host for anything."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

pytestmark = pytest.mark.slow

# What a browser fetches by itself. Links do not count: only a reader follows them.
_FETCHED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?(?:https?:)?//|url\(["']?(?:https?:)?//"""
)
_LINKED = re.compile(
    r"""<link\b(?=[^>]*\brel=["']?(?:stylesheet|icon|preload|preconnect))[^>]*\bhref=["']?(?:https?:)?//"""
)


@pytest.mark.nightly  # .ci/run builds the site each time
def test_the_site_is_complete_and_needs_no_network(tmp_path: Path):
    pytest.importorskip("mkdocs", reason='takes pip install -e ".[docs]"')
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)]
    # A proxy that does not exist stands for no network.
    environment = os.environ | {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        text = path.read_text(encoding="utf-8")
        assert not _FETCHED.search(text) and not _LINKED.search(text), path
    # The Sphinx notation of docstrings was translated, and their sections were recognised.
    reference = (site / "api/runs.html").read_text(encoding="utf-8")
    assert ":func:" not in reference and "-------" not in reference
    assert "log-probability" in (site / "index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://cdn.example/x.js"></script>',
        "<img alt=x src=//a.example/b.png>",
        '<link href="https://fonts.example" rel="preconnect">',
        "<link rel=stylesheet href=https://a.example/b.css>",
        "src: url(https://a.example/font.woff2)",
    ],
)
def test_what_would_be_fetched_is_noticed(text: str):
    assert _FETCHED.search(text) or _LINKED.search(text)
