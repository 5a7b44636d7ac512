"""Reading a run never executes its content."""

import ast
import json
from pathlib import Path

import explaind_tf as xtf
from explaind_tf.constants import FORMAT_VERSION
from explaind_tf.runs.storage.records import RecordFile, file_sha256
from tests.helpers import Recorded


class TestTrust:
    """A run directory may come from anyone, so reading it must not execute its content."""

    SOURCES = sorted((Path(xtf.__file__).parent).rglob("*.py"))

    def test_nothing_imports_a_module_that_executes_data(self):
        forbidden = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
        assert len(self.SOURCES) > 20
        for path in self.SOURCES:
            for node in ast.walk(ast.parse(path.read_text())):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or "", *(alias.name for alias in node.names)]
                found = {part for name in names for part in name.split(".")} & forbidden
                assert not found, f"{path}, line {node.lineno}, imports {found}"

    def test_nothing_evaluates_text_or_allows_pickles(self):
        for path in self.SOURCES:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    name = getattr(node.func, "id", None)
                    assert name not in ("eval", "exec", "compile", "__import__"), f"{path}: {node.lineno}"
                    assert all(k.arg != "allow_pickle" for k in node.keywords), f"{path}: {node.lineno}"

    def test_the_format_does_not_know_keras(self):
        """No Keras config is deserialised from a run: the package that reads it does not even import Keras."""
        for path in (Path(xtf.__file__).parent / "runs").rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
                    assert not any(name.split(".")[0] == "keras" for name in names), path

    def test_manifest_is_plain_json(self, small_run: Recorded):
        body = json.loads((small_run.run_dir / "manifest.json").read_text())
        assert body["format_version"] == FORMAT_VERSION
        for shard in body["shards"]:
            path = small_run.run_dir / shard["file"]
            assert shard["size"] == path.stat().st_size
            assert shard["sha256"] == file_sha256(path)
            assert shard["count"] == len(RecordFile(path, None))
