"""``explaind-tf explore``: what it refuses, how it begins and how it ends."""

import functools
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
from typer.testing import Result

import explaind_tf as xtf
from explaind_tf.cli.commands import explore_command
from explaind_tf.cli.measured import Measured
from explaind_tf.cli.values import Measure
from explaind_tf.runs import RecordedRun
from tests.cli.conftest import error_of

Call = Callable[..., Result]
PATIENCE = 120


def test_other_hosts_need_consent(call: Call, logits_run: Path):
    result = call("explore", logits_run, "--host", "0.0.0.0", "--no-browser")
    assert result.exit_code == 1
    assert re.search("unencrypted.*--i-know-who-can-reach-it", error_of(result))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--inputs", "nowhere.npz"], "no file nowhere.npz"),
        (["--rows", "0:2"], "--rows was given without --inputs"),
        (["--inputs", "nowhere.txt"], "Inputs are read from .npz"),
    ],
)
def test_what_cannot_be_read_is_refused(call: Call, logits_run: Path, arguments: list[str], says: str):
    result = call("explore", logits_run, *arguments, "--no-browser")
    assert result.exit_code == 1
    assert says in error_of(result)


def test_without_the_extra_it_says_what_to_install(logits_run: Path):
    code = "import sys; sys.modules['dash'] = None; from explaind_tf.cli import app; app()"
    done = subprocess.run(
        [sys.executable, "-c", code, "explore", str(logits_run)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert 'pip install "explaind_tf[explore]"' in done.stderr


def test_it_lists_inputs_before_tensorflow_is_imported():
    code = (
        "import sys; import explaind_tf.explore.app, explaind_tf.explore.opening, explaind_tf.cli; "
        "print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


@pytest.mark.nightly
def test_ctrl_c_ends_it_without_a_trace(logits_run: Path, npz: Path):
    before = sorted(path.name for path in logits_run.parent.iterdir())
    command = [
        sys.executable,
        "-m",
        "explaind_tf.cli",
        "explore",
        str(logits_run),
        "--inputs",
        str(npz),
        "--no-browser",
    ]
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
        # A shell that starts the tests in the background makes them, and what they start, ignore it.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            said, errors = _interrupted(process)
        finally:
            process.kill()
    assert process.returncode == 0
    assert said == ""
    assert not re.search("Traceback|Error|Fatal|terminate", errors), errors
    assert sorted(path.name for path in logits_run.parent.iterdir()) == before


def _interrupted(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Open the page, interrupt the process, and return what it said on both streams."""
    assert process.stderr is not None
    address = ""
    while not address:
        line = process.stderr.readline()
        assert line, "it ended"
        address = line.partition("Page: ")[2].strip()
    with urllib.request.urlopen(address, timeout=PATIENCE) as page:
        assert page.status == 200
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(address.rstrip("/")[:-1] + "x/", timeout=PATIENCE)
    process.send_signal(signal.SIGINT)  # TensorFlow is being imported now
    return process.communicate(timeout=PATIENCE)


@pytest.mark.nightly
@pytest.mark.parametrize("measure", list(Measure))
def test_the_python_of_a_measure_makes_the_same(measure: Measure, logits_run: Path, npz: Path):
    reader = RecordedRun(logits_run)
    read = explore_command._read(reader, str(npz), None)
    assert read.y is not None
    given = Measured(loss="sparse_categorical_crossentropy") if measure is Measure.LOSS else Measured()
    run = xtf.open_run(logits_run)
    made = explore_command._measure(measure, given, read)(run, None)
    scope = {"xtf": xtf, "np": np, "keras": keras, "functools": functools}
    exec("\n".join([*read.code, f"measurement = {made.code([3, 1])}"]), scope)
    theirs = run.measure(scope["x"][[3, 1]], scope["measurement"])
    np.testing.assert_array_equal(run.measure(read.x[[3, 1]], made.of([3, 1])), theirs)
