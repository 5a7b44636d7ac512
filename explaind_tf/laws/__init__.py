"""Displacement laws: how an optimizer's step moves the weights, as pure functions without Keras.

A new law needs one new file and one line of registration.
"""

from collections.abc import Mapping
from typing import Any

from explaind_tf.laws.adadelta import AdadeltaLaw
from explaind_tf.laws.adafactor import AdafactorLaw
from explaind_tf.laws.adagrad import AdagradLaw
from explaind_tf.laws.adamax import AdamaxLaw
from explaind_tf.laws.adamw import AdamWLaw
from explaind_tf.laws.law import Law, Moments, StepFactors, UsedGradient, clip_ratio, decoupled_decay
from explaind_tf.laws.lion import LionLaw
from explaind_tf.laws.nadam import NadamLaw
from explaind_tf.laws.rmsprop import CenteredRMSpropLaw, RMSpropLaw
from explaind_tf.laws.sgd import SGDLaw

__all__ = [
    "AdadeltaLaw",
    "AdafactorLaw",
    "AdagradLaw",
    "AdamWLaw",
    "AdamaxLaw",
    "CenteredRMSpropLaw",
    "Law",
    "LionLaw",
    "Moments",
    "NadamLaw",
    "RMSpropLaw",
    "SGDLaw",
    "StepFactors",
    "UsedGradient",
    "clip_ratio",
    "decoupled_decay",
    "law_from_config",
    "register",
]

_LAWS: dict[str, type[Law]] = {}


def register(law: type[Law]) -> None:
    """Register a law under its name, which the manifests of runs store.

    Raises
    ------
    ValueError
        If the name is taken.
    """
    if law.name in _LAWS:
        raise ValueError(f"A law named {law.name!r} is registered already. Give the new law another `name`.")
    _LAWS[law.name] = law


def law_from_config(name: str, constants: Mapping[str, Any]) -> Law:
    """Return the law of a name with the constants that its ``to_config()`` gave.

    Raises
    ------
    KeyError
        If there is no law of that name.
    TypeError, ValueError
        If the constants are not those of the law.
    """
    return _LAWS[name].from_config(constants)


register(AdadeltaLaw)
register(AdafactorLaw)
register(AdagradLaw)
register(AdamWLaw)
register(AdamaxLaw)
register(CenteredRMSpropLaw)
register(LionLaw)
register(NadamLaw)
register(RMSpropLaw)
register(SGDLaw)
