"""Each architecture of keras.applications and KerasHub is recorded and accounted for, as it is, with random weights."""

from pathlib import Path

import keras
import pytest

from experiments.architectures.accounting import QUESTIONS, ask, record
from experiments.architectures.applications import APPLICATIONS
from experiments.architectures.example import Example
from tests.nightly import sweep

STEPS = 2
# Stated here, so that the tests are collected without KerasHub.
HUB = (
    "GPT-2",
    "Llama",
    "Gemma",
    "Gemma 2",
    "Mistral",
    "Qwen",
    "BERT",
    "T5",
    "Whisper",
    "ViT",
    "ResNet",
    "EfficientNet",
)


def _is_accounted_for(example: Example, run_dir: Path):
    run = record(example, STEPS, run_dir)
    run.verify(progress=False)
    for axes in QUESTIONS:
        ask(run, example, axes)


@pytest.mark.parametrize("name", sweep(APPLICATIONS, daily=False))
def test_keras_applications(run_dir: Path, name: str):
    keras.utils.set_random_seed(0)
    _is_accounted_for(APPLICATIONS[name](), run_dir)


@pytest.mark.filterwarnings("ignore:.*was passed an input with a mask attached:UserWarning")  # T5
@pytest.mark.parametrize("name", sweep(HUB, daily=False))
def test_keras_hub(run_dir: Path, name: str):
    pytest.importorskip("keras_hub")
    from experiments.architectures.hub import HUB as examples

    assert tuple(examples) == HUB
    keras.utils.set_random_seed(0)
    _is_accounted_for(examples[name](), run_dir)
