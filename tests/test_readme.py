"""The README's Python runs as it stands, block after block."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"


# What Keras itself raises when it saves weights with NumPy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_every_python_block_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 4
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), namespace)
    assert namespace["top"].sizes == {"input": 3, "output": 1, "rank": 5}


def test_the_readmes_shell_commands_are_those_of_ci():
    commands = re.findall(r"```sh\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert commands == ["pip install -e . && explaind-tf demo\n", 'pip install -e ".[test]" && pytest\n']
