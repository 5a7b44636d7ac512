"""All architectures, by name. Those of KerasHub are there only if it is installed."""

import importlib.util
from collections.abc import Callable

from experiments.architectures.applications import APPLICATIONS
from experiments.architectures.example import Example

HAS_HUB = importlib.util.find_spec("keras_hub") is not None

ARCHITECTURES: dict[str, Callable[[], Example]] = dict(APPLICATIONS)
if HAS_HUB:
    from experiments.architectures.hub import HUB

    ARCHITECTURES |= HUB
