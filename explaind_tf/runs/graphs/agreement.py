"""Do the graphs of a run fit its manifest? Both say which variables, inputs, targets and outputs there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from explaind_tf.runs.format import structure as struct
from explaind_tf.runs.format.description import RunDescription, VariableSpec
from explaind_tf.runs.format.expect import expect
from explaind_tf.runs.format.structure import Structure


@dataclass(frozen=True)
class Signature:
    """What a function takes and returns, in order. Sizes that differ from call to call are unknown."""

    arguments: tuple[tf.TensorSpec, ...]
    results: tuple[tf.TensorSpec, ...]

    @classmethod
    def of(cls, concrete: Any) -> "Signature":
        """Return the signature of a concrete function, without what it captured."""
        count = len(concrete.inputs) - len(concrete.captured_inputs)
        arguments, results = concrete.inputs[:count], concrete.outputs
        return cls(*(tuple(tf.TensorSpec(t.shape, t.dtype) for t in part) for part in (arguments, results)))


def require_agreement(signatures: Mapping[str, Signature], description: RunDescription) -> None:
    """Refuse functions that take or return something else than the manifest says.

    Parameters
    ----------
    signatures : mapping of str
        Signatures of the functions of :class:`explaind_tf.runs.graphs.loaded.Graphs`, by name. Some may be missing.
    description : RunDescription
        The run's manifest.

    Raises
    ------
    RunFormatError
        At the first that differs.
    """
    state, outputs = _variables(description.state), _samples(description.outputs)
    points = [*_variables(description.variables), *state, *_samples(description.inputs)]
    samples = [*points, *_samples(description.targets), *_samples(description.weights)]
    theta_dtype = tf.dtypes.as_dtype(description.variables[0].dtype)
    scales = tf.TensorSpec((None,), theta_dtype)
    scale_of_each = tf.TensorSpec((len(description.loss.get("losses", ())),), theta_dtype)
    losses = tf.TensorSpec(None, theta_dtype)
    expected = {
        "forward": (points, outputs),
        "sample_losses": ([*samples, scales], [scales, *state]),
        "token_losses": ([*samples, scales], [losses]),
        "loss_scales": (samples, [scale_of_each]),
        "penalty": (points, [losses]),
    }
    for name, signature in signatures.items():
        arguments, results = expected[name]
        _require(f"function {name!r} takes", signature.arguments, arguments, are_same=True)
        # The outputs in the manifest are those of this function. Sizes of the other results are known from elsewhere.
        _require(f"function {name!r} returns", signature.results, results, are_same=name == "forward")


def _require(
    what: str, found: Sequence[tf.TensorSpec], expected: Sequence[tf.TensorSpec], *, are_same: bool
) -> None:
    """Refuse other tensors. Unless they must be the same, a size may be unknown on either side."""
    expect(
        len(found) == len(expected),
        f"its {what} {len(found)} tensors, but the manifest describes {len(expected)}",
    )
    for place, (own, stated) in enumerate(zip(found, expected, strict=True)):
        fits = own.dtype == stated.dtype and own.shape.is_compatible_with(stated.shape)
        expect(
            own == stated if are_same else fits,
            f"its {what} {own.dtype.name} of shape {own.shape} as tensor {place}, but the manifest describes "
            f"{stated.dtype.name} of shape {stated.shape}",
        )


def _variables(specs: Sequence[VariableSpec]) -> list[tf.TensorSpec]:
    return [tf.TensorSpec(spec.shape, tf.dtypes.as_dtype(spec.dtype)) for spec in specs]


def _samples(structure: Structure | None) -> list[tf.TensorSpec]:
    """Return the specs of a batch of samples."""
    leaves = [] if structure is None else struct.leaves(structure)
    return [tf.TensorSpec((None, *leaf.shape), tf.dtypes.as_dtype(leaf.dtype)) for leaf in leaves]
