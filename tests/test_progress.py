"""Progress bars: the rate on a terminal, nothing in logs and pipes."""

import io

import pytest
from rich.console import Console

from explaind_tf import progress


@pytest.mark.parametrize("terminal", [True, False])
def test_bars_are_for_terminals(terminal: bool, monkeypatch: pytest.MonkeyPatch):
    written = io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=120)
    monkeypatch.setattr(progress, "Console", lambda **_: console)
    with progress.Progress(True).task("Sweep", 3) as advance:
        for _ in range(3):
            advance()
    assert ("/s" in written.getvalue()) == ("3/3" in written.getvalue()) == terminal
    assert terminal or not written.getvalue().strip()
