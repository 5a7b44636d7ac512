"""Each architecture of keras.applications and KerasHub is recorded and accounted for, as it is, with random weights."""

import importlib
from pathlib import Path

import keras
import pytest

from experiments.architectures.accounting import QUESTIONS, ask, record
from experiments.architectures.applications import APPLICATIONS
from experiments.architectures.registry import HUB, example_of
from tests.nightly import sweep

pytestmark = pytest.mark.usefixtures("many_at_once")

STEPS = 6


def _is_accounted_for(name: str, run_dir: Path):
    keras.utils.set_random_seed(0)
    example = example_of(name)
    run = record(example, STEPS, run_dir)
    run.verify(progress=False)
    for axes in QUESTIONS:
        ask(run, example, axes)


# They take minutes each. `.ci/run` accounts for two of them by day.
@pytest.mark.parametrize("name", sweep(APPLICATIONS, daily=False))
def test_keras_applications(run_dir: Path, name: str):
    _is_accounted_for(name, run_dir)


@pytest.mark.filterwarnings("ignore:.*was passed an input with a mask attached:UserWarning")  # T5
@pytest.mark.parametrize("name", sweep(HUB, daily=False))
def test_keras_hub(run_dir: Path, name: str):
    pytest.importorskip("keras_hub", exc_type=ImportError)
    assert tuple(importlib.import_module("experiments.architectures.hub").HUB) == HUB
    _is_accounted_for(name, run_dir)
