"""The README's Python and shell commands run as they stand, block after block."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from explaind_tf.cli import app

# What Keras itself raises when it saves weights with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

README = Path(__file__).parent.parent / "README.md"


def blocks_of(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.fixture(scope="module", name="executed")
def _executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Run every Python block in an empty directory; return the directory and the names that they define."""
    directory, namespace = tmp_path_factory.mktemp("readme"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        for block in blocks_of("python"):
            exec(compile(block, str(README), "exec"), namespace)
    return directory, namespace


def test_every_python_block_of_the_readme_runs(executed: tuple[Path, dict[str, Any]]):
    assert len(blocks_of("python")) == 6
    assert executed[1]["top"].sizes == {"input": 3, "output": 1, "rank": 5}


def test_every_console_block_of_the_readme_runs(
    executed: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
):
    (block,) = blocks_of("console")
    commands = [shlex.split(line.removeprefix("$ ")) for line in block.splitlines()]
    assert {arguments[1] for arguments in commands} == {"info", "verify", "estimate", "attribute", "report"}
    monkeypatch.chdir(executed[0])
    for program, *arguments in commands:
        assert program == "explaind-tf"
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert Path("ledger.zarr").is_dir()
    assert Path("report.html").is_file()


def test_the_readmes_shell_commands_are_those_of_ci():
    assert blocks_of("sh") == [
        "pip install -e . && explaind-tf demo\n",
        'pip install -e ".[test]" && pytest\n',
    ]
