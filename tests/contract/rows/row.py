"""`Row`, one row of the contract, and the terms that it may fill."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

import explaind_tf as xtf
from tests.contract.rows.arrays import X, Y

DOUBLE, SINGLE = 1e-8, 1e-4
# Terms of every training with weight decay, and the same with one term more.
ALL = frozenset({"weight_decay"})
WITH = {name: ALL | {name} for name in ("external", "regularizer", "state", "carryover", "precision")}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    family, name : str
        Group of rows, and the row's name; both are shown in docs/contract.md.
    model : callable
        Returns the model.
    arrays : callable
        Returns the arrays of the training set.
    optimizer : str
        Its name in Keras, such as ``"AdamW"``.
    options, compile, fit : callable
        Return the arguments of the optimizer (including the learning rate), of ``compile`` and of ``fit``.
    callbacks : callable
        Returns further callbacks.
    tap : dict
        Arguments of ``tap``.
    terms : frozenset of str
        Terms besides ``data`` that must not be zero; all others must be.
    policy : str
        Dtype policy.
    refused : str or None
        Regular expression that the message of the refusal must match; None if the ledger must balance.
    fits : int
        How many times the model is fitted with the same logger.
    between : callable
        Called with the model between two fits.
    prepare : callable
        Called with the compiled model before the logger exists.
    loosest : float
        A tolerance above that of the precision, for outputs with non-smooth points.
    logger_first : bool
        Whether the logger is listed before the other callbacks.
    scope : callable
        Returns the context in which the model is made and compiled.
    logical_devices : int
        CPUs that TensorFlow must see. This is set before TensorFlow starts, so more than one needs a new process.
    wrap : callable
        Returns the dataset that is tapped, from the batched one.
    most_rounding : float
        Largest rounding in float64, as a share of the movement. It is larger where a weight's gradient is nothing else.
    tokens : int
        Positions of a sample for which the loss has a value each; 0 if there is no token axis.
    """

    family: str
    name: str
    model: Callable[[], keras.Model]
    arrays: Callable[[], Any] = lambda: (X, Y)
    optimizer: str = "AdamW"
    options: Callable[[], dict[str, Any]] = lambda: {"learning_rate": 0.05}
    compile: Callable[[], dict[str, Any]] = dict
    fit: Callable[[], dict[str, Any]] = dict
    callbacks: Callable[[], list[keras.callbacks.Callback]] = list
    tap: dict[str, Any] = field(default_factory=dict)
    terms: frozenset[str] = frozenset({"weight_decay"})
    policy: str = "float64"
    most_rounding: float = 1e-12
    refused: str | None = None
    fits: int = 1
    between: Callable[[keras.Model], None] = lambda model: None
    prepare: Callable[[keras.Model], None] = lambda model: None
    loosest: float = 0.0
    logger_first: bool = True
    scope: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    logical_devices: int = 1
    wrap: Callable[[tf.data.Dataset], tf.data.Dataset] = lambda dataset: dataset
    tokens: int = 0

    @property
    def tolerance(self) -> float:
        """Tolerance to which the ledger must balance, as a share of the movement."""
        return max(self.loosest, DOUBLE if self.policy == "float64" else SINGLE)

    @property
    def outcome(self) -> str:
        """The row's outcome, as the table shows it."""
        return f"exact to {self.tolerance:.0e}" if self.refused is None else "refused"


def options_of(learning_rate: Any, **others: Any) -> Callable[[], dict[str, Any]]:
    """Return a function that returns the arguments of an optimizer."""
    return lambda: {"learning_rate": learning_rate, **others}


def optimizer_class(row: Row, *, recorded: bool) -> type[keras.optimizers.Optimizer]:
    """Return the row's path optimizer, or the Keras optimizer that it corresponds to."""
    return getattr(xtf, f"Path{row.optimizer}") if recorded else getattr(keras.optimizers, row.optimizer)
