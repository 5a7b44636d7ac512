"""A manifest is read without trust, and errors name what is wrong with it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import explaind_tf as xtf
from explaind_tf import RunFormatError
from explaind_tf.constants import FORMAT_VERSION, KNOWN_VERSIONS
from explaind_tf.runs.format.manifest import encode_manifest, read_manifest
from explaind_tf.runs.storage.sealed import SEAL
from tests.helpers import Recorded
from tests.runs.damage import STEPS, edit_manifest, shard_of


class TestManifest:
    def test_it_is_written_again_as_it_was(self, small_run: Recorded):
        written = (small_run.run_dir / "manifest.json").read_bytes()
        assert encode_manifest(read_manifest(small_run.run_dir)) == written
        assert list(json.loads(written)) == [
            *("format_version", "run_id", "created", "status"),
            *("variables", "state", "optimizer", "optimizer_state", "every", "loss"),
            *("inputs", "targets", "weights", "outputs", "level", "level_reason"),
            *("environment", "graphs", "shards", SEAL),
        ]

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{",
            "[]",
            "null",
            "\x00",
            '{"format_version": 2',
            '{"format_version": 2}',
            pytest.param(
                "[" * 100_000,
            ),
        ],
    )
    def test_damaged_json_is_refused(self, copied: Path, text: str):
        (copied / "manifest.json").write_text(text)
        with pytest.raises(RunFormatError, match=r"manifest\.json"):
            xtf.open_run(copied)

    def test_every_truncation_is_refused(self, copied: Path):
        path = copied / "manifest.json"
        whole = path.read_bytes().rstrip()
        for size in range(0, len(whole), 41):
            path.write_bytes(whole[:size])
            with pytest.raises(RunFormatError, match=r"manifest\.json is damaged"):
                xtf.open_run(copied)

    def test_text_that_is_not_utf8_is_refused(self, copied: Path):
        (copied / "manifest.json").write_bytes(b'{"\xff": 1}')
        with pytest.raises(RunFormatError, match=r"manifest\.json is damaged"):
            xtf.open_run(copied)

    @pytest.mark.parametrize("version", [0, 2, 3, True, FORMAT_VERSION + 1, "1", None])
    def test_other_format_version_is_refused(self, copied: Path, version: Any):
        edit_manifest(copied, lambda body: body.update(format_version=version))
        known = " and ".join(map(str, KNOWN_VERSIONS))
        with pytest.raises(
            RunFormatError, match=rf"version {version!r} was written by another.*reads {known}"
        ):
            xtf.open_run(copied)

    @pytest.mark.parametrize(
        "key",
        ["run_id", "status", "variables", "state", "optimizer", "loss", "inputs", "targets", "shards"],
    )
    def test_missing_field_is_named(self, copied: Path, key: str):
        edit_manifest(copied, lambda body: body.pop(key))
        with pytest.raises(RunFormatError, match=f"manifest.json is damaged.*{key}"):
            xtf.open_run(copied)

    @pytest.mark.parametrize(
        ("edit", "message"),
        [
            (lambda body: body.update(status="done"), "unknown status 'done'"),
            (lambda body: body.update(variables={}), "variables must be a list"),
            (lambda body: body.update(optimizer=[]), "optimizer must be an object"),
            (lambda body: body.update(variables=[3]), "a variable must be an object; found 3"),
            (lambda body: body["variables"][0].update(more=1), r"a variable has unknown fields \['more'\]"),
            (lambda body: body["optimizer"].update(more=1), r"optimizer has unknown fields \['more'\]"),
            (
                lambda body: body["loss"].pop("has_regularizer"),
                "loss=.* must give losses and has_regularizer",
            ),
            (lambda body: body["loss"].clear(), "loss={} must give losses and has_regularizer"),
            (lambda body: body["loss"].update(more=1), r"loss has unknown fields \['more'\]"),
            (
                lambda body: body["loss"]["losses"][0].update(more=1),
                "loss.losses=.* must be a list of losses",
            ),
            (lambda body: body["shards"][0].update(more=1), r"shards has unknown fields \['more'\]"),
            (lambda body: body["graphs"][0].update(more=1), r"graphs has unknown fields \['more'\]"),
            (lambda body: body["state"][0].update(decay=True), "has decay=true, but no optimizer trains it"),
            (lambda body: body["optimizer"].update(ema_momentum=0.9), "keeps no averages of weights"),
            (lambda body: body.update(variables=[]), "no trainable variables"),
            (lambda body: body["variables"][0].update(shape=[None]), "unknown size"),
            (lambda body: body["variables"][0].update(dtype="object"), "dtype 'object'"),
            (lambda body: body["variables"][0].update(shape=[4, 3]), "record 0 .*is damaged: field 'theta'"),
            (lambda body: body["state"].pop(), "record 0 .*is damaged: field 'state'"),
            (lambda body: body["shards"].pop(0), "names no steps file"),
            (lambda body: body["shards"].append(body["shards"][0]), "names a shard twice"),
            (lambda body: body["shards"][0].update(count=-1), "count=-1"),
            (lambda body: body["shards"][0].update(size="9"), "size='9'"),
            (lambda body: body["inputs"].update(more=1), "does not know"),
            pytest.param(
                lambda body: body["shards"][0].update(count=None, size=None, sha256=None),
                "complete",
            ),
            pytest.param(
                lambda body: [variable.update(dtype="int32") for variable in body["variables"]],
                "float",
            ),
        ],
    )
    def test_wrong_value_is_refused(self, copied: Path, edit: Callable[[Any], Any], message: str):
        edit_manifest(copied, edit)
        with pytest.raises(RunFormatError, match=message):
            xtf.open_run(copied)

    @pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", "..", ".", "", 3, None])
    def test_shard_outside_of_the_directory_is_refused(self, copied: Path, name: Any):
        (copied.parent / "x").write_bytes((copied / STEPS).read_bytes())
        edit_manifest(copied, lambda body: shard_of(body, STEPS).update(file=name))
        with pytest.raises(RunFormatError, match="must be a file in the run directory itself"):
            xtf.open_run(copied)
