"""All architectures, by name."""

import importlib

from experiments.architectures.applications import APPLICATIONS
from experiments.architectures.example import Example

# Named here as well, since to import KerasHub takes seconds: only what builds one of its models needs it.
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
NAMES = (*HUB, *APPLICATIONS)
# Too slow for a check of each day. EfficientNetV2B0 takes nine minutes of CPU time, the others are larger or have more
# layers.
SLOW = ("EfficientNetV2B0", "ResNet50V2", "DenseNet121", "ConvNeXtTiny", "NASNetMobile")


def example_of(name: str) -> Example:
    """Build an architecture with its data.

    Raises
    ------
    KeyError
        If there is no such architecture.
    ImportError
        If it is one of KerasHub, which is not installed.
    """
    if name not in HUB:
        return APPLICATIONS[name]()
    return importlib.import_module("experiments.architectures.hub").HUB[name]()
