"""The command line that is made from an experiment's settings."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from experiments.command import Seeds, command
from experiments.results import VALUES_FILE, Findings


@dataclasses.dataclass(frozen=True)
class Settings:
    steps: int
    width: float = 1.0
    seeds: tuple[int, ...] = (0,)


def experiment(settings: Settings, runs_dir: Path) -> Findings:
    return Findings("A title", "A question?", ["A conclusion."], [], {"steps": settings.steps})


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ([], {"steps": 100, "width": 1.0, "seeds": [0]}),
        (["--quick"], {"steps": 2, "width": 1.0, "seeds": [0]}),
        (["--quick", "--width", "0.5"], {"steps": 2, "width": 0.5, "seeds": [0]}),
        (["--seed", "3", "--seed", "4"], {"steps": 100, "width": 1.0, "seeds": [3, 4]}),
    ],
)
def test_options_replace_settings(tmp_path: Path, options, settings):
    app = typer.Typer()
    main = command(
        "name",
        experiment,
        full=Settings(100),
        quick=Settings(2),
        help="Do it.",
        seeds=Seeds,
        width=Annotated[float | None, typer.Option(help="Of it.")],
    )
    app.command()(main)
    result = CliRunner().invoke(app, [*options, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / VALUES_FILE).read_text())
    assert found["settings"] == settings
    assert found["quick"] == ("--quick" in options)
    shown = CliRunner().invoke(app, ["--help"]).output
    assert "Do it." in shown and "--steps" not in shown
