"""`WeightPath`: the common interface of a recorded run and a series of checkpoints."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from explaind_tf.levels import MEANING, Level
from explaind_tf.notebooks import summary
from explaind_tf.runs.format import structure as struct
from explaind_tf.runs.format.description import VariableSpec
from explaind_tf.runs.format.manifest import Manifest
from explaind_tf.runs.format.step_records import Layout
from explaind_tf.runs.samples import SampleStore
from explaind_tf.runs.steps import Transition
from explaind_tf.terms import Source, terms_of

if TYPE_CHECKING:  # a path is opened without TensorFlow, whose import takes seconds
    import tensorflow as tf

    from explaind_tf.runs.graphs.loaded import ForwardGraph, Graphs


class Steps(Protocol):
    """The weights and states along a path."""

    layout: Layout

    def __len__(self) -> int:
        """Return the number of steps."""

    def theta(self, step: int) -> np.ndarray:
        """Return θ before ``step``, shape (D,); ``step == len(self)`` gives the final weights."""

    def state(self, step: int) -> list[np.ndarray]:
        """Return the non-trainable variables before ``step``."""

    def transition(self, step: int) -> Transition:
        """Return everything that is known about ``step``."""

    def recorded_states(self) -> Iterator[list[np.ndarray]]:
        """Yield all states of the path that are stored: the first one, the last one, then those between."""


class WeightPath(ABC):
    """A path of weights, step by step, and the model that they belong to.

    Attributes
    ----------
    axes : tuple of str
        The axes that a ledger of the path can have.
    source : {"recorded", "checkpoints"}
        The kind of path. It determines the terms of its ledgers.
    manifest : Manifest
        The model's variables, inputs and outputs.
    step_store : Steps
        The weights.
    """

    manifest: Manifest
    step_store: Steps

    @property
    def level(self) -> Level:
        """What can be asked of the path: ``"sample"``, ``"cause"`` or ``"path"``, each less than the one before."""
        return self.manifest.level

    @property
    @abstractmethod
    def axes(self) -> tuple[str, ...]:
        """The axes that its ledgers can have."""

    @property
    @abstractmethod
    def source(self) -> Source:
        """The kind of path."""

    @property
    @abstractmethod
    def samples(self) -> SampleStore:
        """The training samples."""

    @property
    @abstractmethod
    def graphs(self) -> "Graphs | ForwardGraph":
        """The model as pure functions."""

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms of its ledgers: the causes, and the residual."""
        return terms_of(self.source)

    @property
    def weights_dtype(self) -> "tf.DType":
        """Dtype of the trainable weights."""
        import tensorflow as tf

        return tf.dtypes.as_dtype(self.manifest.variables[0].dtype)

    def computes_otherwise(self, dtype: "tf.DType") -> bool:
        """Return whether the model computes in less precise numbers than these.

        Parameters
        ----------
        dtype : tf.DType
            float32 or float64.

        Returns
        -------
        bool
            Whether its weights or some of its layers do.
        """
        import tensorflow as tf

        from explaind_tf.runs.graphs.precision import narrower_than

        narrower = set(narrower_than(dtype))
        if self.weights_dtype == tf.float64:
            narrower.discard(
                tf.float32
            )  # Keras computes some constants and averages of a float64 model in float32
        return bool(narrower & {self.weights_dtype, *self.graphs.functions.computes_in})

    @cached_property
    def moving(self) -> tuple[bool, ...]:
        """For each variable of the state, whether it is a part of the point z: a floating-point number that ever moves.

        A frozen model has millions that never do. They are constants: no derivative by them is asked for.
        """
        specs = self.manifest.state
        resting = {place for place, spec in enumerate(specs) if spec.is_floating}
        states = self.step_store.recorded_states() if resting else iter(())
        first = next(states, [])
        for state in states:
            resting -= {
                place
                for place in resting
                # Of what is still as it was at the start, records of steps refer to the arrays from there.
                if first[place] is not state[place] and not np.array_equal(first[place], state[place])
            }
            if not resting:
                break
        return tuple(spec.is_floating and place not in resting for place, spec in enumerate(specs))

    @property
    def run_id(self) -> str:
        """The run's unique identifier."""
        return self.manifest.run_id

    @property
    def steps(self) -> np.ndarray:
        """Step numbers, shape (N,), from 0."""
        return np.arange(len(self.step_store))

    @property
    def variables(self) -> tuple[VariableSpec, ...]:
        """The trainable variables, in the order of θ."""
        return self.manifest.variables

    @property
    def layers(self) -> tuple[str, ...]:
        """Paths of the layers that own weights or floating-point state, in the order of the model."""
        owners = [*self.variables, *(spec for spec in self.manifest.state if spec.is_floating)]
        return tuple(dict.fromkeys(variable.layer for variable in owners))

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        reason = f" {self.manifest.level_reason}" if self.manifest.level_reason else ""
        optimizer = self.manifest.optimizer.law if self.source == "recorded" else "not known"
        rows = [
            ("what", repr(self)),
            ("run", self.run_id),
            ("tells changes", f"{MEANING[self.level]} (level {self.level}).{reason}"),
            ("steps", f"{len(self.steps):,}"),
            ("weights", f"{sum(one.size for one in self.variables):,} in {len(self.layers)} layers"),
            ("optimizer", optimizer),
            ("inputs", ", ".join(map(str, struct.leaves(self.manifest.inputs)))),
            ("outputs", ", ".join(map(str, struct.leaves(self.manifest.outputs)))),
        ]
        return summary(
            type(self).__name__,
            rows,
            foot="Ask it: run.attribute(x). Look at it in the browser: run.explore(x, y).",
        )

    def theta(self, step: int) -> dict[str, np.ndarray]:
        """Return the trainable variables before ``step``, by path.

        Parameters
        ----------
        step : int
            0 gives the initial weights, ``len(run.steps)`` the final ones.

        Returns
        -------
        dict of str to numpy.ndarray
            Each in the shape and dtype of its variable.

        Raises
        ------
        IndexError
            If the run has no such step.
        """
        if not 0 <= step <= len(self.step_store):
            raise IndexError(f"step must be in 0 … {len(self.step_store)} (the final weights); got {step}.")
        theta = self.step_store.theta(step)
        offsets = np.cumsum([0, *(variable.size for variable in self.variables)])
        return {
            variable.path: theta[start : start + variable.size].reshape(variable.shape)
            for variable, start in zip(self.variables, offsets, strict=False)
        }
