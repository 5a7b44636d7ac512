"""verify: what it finds, and the codes it ends with."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

import explaind_tf as xtf
from tests.cli.conftest import error_of

Call = Callable[..., Result]


class TestVerify:
    @pytest.mark.parametrize("option", ["--replay", "--no-replay"])
    def test_fine(self, call: Call, logits_run: Path, option: str):
        result = call("verify", logits_run, option, "--json")
        assert (result.exit_code, result.stderr) == (0, "")
        found = json.loads(result.stdout)
        assert (found["status"], found["steps"], found["complete"]) == ("fine", 6, True)
        assert found["replayed"] == (option == "--replay")
        assert f"{logits_run} is fine: 6 steps" in call("verify", logits_run, option).stdout

    @pytest.mark.parametrize("file", ["steps-00000.tfrecord", "samples-00000.tfrecord"])
    def test_damaged(self, call: Call, logits_run: Path, tmp_path: Path, file: str):
        shutil.copytree(logits_run, tmp_path / "run")
        path = tmp_path / "run" / file
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        result = call("verify", tmp_path / "run", "--no-replay")
        assert result.exit_code == 3
        assert file in error_of(result)
        result = call("verify", tmp_path / "run", "--no-replay", "--json")
        assert json.loads(result.stdout)["status"] == "damaged"

    def test_unbalanced(self, call: Call, logits_run: Path, monkeypatch: pytest.MonkeyPatch):
        def fail(self: xtf.Run, **options: object) -> None:
            raise xtf.UnbalancedLedgerError("step 3 was not taken")

        monkeypatch.setattr(xtf.Run, "verify", fail)
        result = call("verify", logits_run)
        assert (result.exit_code, error_of(result)) == (4, "Error: step 3 was not taken")
        found = json.loads(call("verify", logits_run, "--json").stdout)
        assert (found["status"], found["message"]) == ("unbalanced", "step 3 was not taken")
