"""`open_checkpoints`: from files and a model to a run."""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from explaind_tf import constants as names
from explaind_tf.attribution.checkpoint_run import CheckpointRun
from explaind_tf.checkpoints.weights import normalizations, read_weights
from explaind_tf.errors import RefusedError
from explaind_tf.recording.checks import check_variables
from explaind_tf.recording.exporting.pure_functions import traced_forward, variable_specs
from explaind_tf.runs.format.description import OptimizerSettings
from explaind_tf.runs.format.manifest import COMPLETE, Manifest
from explaind_tf.runs.format.structure import Leaf, Structure
from explaind_tf.runs.graphs.loaded import ForwardGraph
from explaind_tf.runs.series import find_checkpoints

# Checkpoints do not tell what moved the weights.
_NO_OPTIMIZER = OptimizerSettings(law="", constants={}, second_moment=False, accumulates=1, clipvalue=None)


def open_checkpoints(
    checkpoints: str | Path | Iterable[str | Path], model: keras.Model, *, inputs: Any = None
) -> CheckpointRun:
    """Open saved checkpoints of a model that was never recorded, as a run with step, layer and parameter axes.

    With Φ_s(x) = ∫₀¹ ∂f/∂z (x; z_s + t(z_{s+1} − z_s)) dt, z_s being all floating-point variables of checkpoint s,

        f(z_N) − f(z_0) = Σ_s Φ_s · (z_{s+1} − z_s) = weights + state + residual,

    exactly: ``weights`` is what the trainable weights did, ``state`` what the others did (BatchNorm statistics; weights
    of layers that the model has frozen). It holds on any path; this one is straight from each checkpoint to the next,
    in all variables, where training went a winding way. The shorter the steps, the closer to it the entries of layers.

    Parameters
    ----------
    checkpoints : str, Path or iterable of them
        A list of paths in the order of training, or a pattern whose matches are sorted by the numbers in their names
        (``epoch-2`` before ``epoch-10``). Each is a ``.weights.h5``, ``.keras`` or ``.h5`` file, the prefix of a
        TensorFlow checkpoint, or the directory of a SavedModel. Weights alone are read, nothing is executed.
    model : keras.Model
        The model that was saved, built; it gives the functions, in inference mode. Its own weights do not matter and
        are left as they are. It reads the checkpoints as long as the run is used.
    inputs : array or nested structure of arrays, optional
        Some inputs, with a batch dimension, of a subclassed model, which does not say what it takes.

    Returns
    -------
    CheckpointRun
        Step s leads from ``run.checkpoints[s]`` to ``run.checkpoints[s + 1]``; two of them are held in memory,
        beside the point at which the path ends.
        ``run.attribute`` and ``run.plan`` are those of :class:`Run`. What needs samples is refused.

    Raises
    ------
    RunFormatError
        If a checkpoint cannot be read, or does not fit the model.
    RefusedError
        If the model cannot be differentiated by its variables.
    ValueError
        If there are fewer than two checkpoints, or one twice.
    TypeError
        If ``model`` is no ``keras.Model``.
    """
    paths = find_checkpoints(checkpoints)
    _check_model(model)
    input_structure = _input_structure(model, inputs)
    forward, outputs = traced_forward(model, input_structure)
    manifest = Manifest(
        run_id="",
        created=datetime.now(UTC).isoformat(),
        status=COMPLETE,
        variables=variable_specs(model.trainable_variables),
        state=variable_specs(model.non_trainable_variables),
        optimizer=_NO_OPTIMIZER,
        optimizer_state=(),
        every=1,
        loss={},
        inputs=input_structure,
        targets=(),
        weights=None,
        outputs=outputs,
        environment={
            "explaind_tf": names.VERSION,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
        graphs=(),
        shards=(),
    )
    # Seeds and counters have no part in a forward pass in inference mode, and most formats do not hold them.
    constants = [
        None if spec.is_floating else variable.numpy()
        for spec, variable in zip((*manifest.variables, *manifest.state), _variables(model), strict=True)
    ]
    read = partial(_read, model=model, constants=constants)
    return CheckpointRun(paths, read, manifest, ForwardGraph(forward.get_concrete_function()))


def _variables(model: keras.Model) -> list[keras.Variable]:
    return [*model.trainable_variables, *model.non_trainable_variables]


def _read(path: Path, model: keras.Model, constants: list[np.ndarray | None]) -> list[np.ndarray]:
    values = read_weights(path, model, constants)
    fixed = {id(variable) for layer in normalizations(model) for variable in layer.variables}
    for variable, value in zip(_variables(model), values, strict=True):
        own = variable.numpy()
        if id(variable) in fixed and value.shape == own.shape and not np.array_equal(value, own):
            raise RefusedError(
                f"{path}: {variable.path!r} differs from the model's. A Normalization layer keeps its statistics beside "
                f"its variables, so they must be in the model and the same in all checkpoints: call "
                f"model.load_weights(...) of the first one, and leave out those of another adapt()."
            )
    return values


def _check_model(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be the keras.Model that was saved; got {type(model).__name__}.")
    if not model.built:
        raise RefusedError(
            f"The model {model.name!r} has no weights yet: call it on a batch of inputs once, or build(...) it."
        )
    check_variables(model)


def _input_structure(model: keras.Model, inputs: Any) -> Structure:
    if inputs is not None:
        return _structure(inputs)
    if isinstance(model, keras.Sequential) and model.inputs:
        return _structure(model.inputs[0])
    if isinstance(model, keras.Sequential) or not hasattr(model, "input_shape"):
        raise RefusedError(
            f"The model {model.name!r} is subclassed and does not say what it takes. Give some inputs, with a batch "
            f"dimension: open_checkpoints(..., inputs=x[:1])."
        )
    return _structure(model.input)


def _structure(value: Any) -> Structure:
    """Return the structure of a batch, of arrays or symbolic tensors."""
    if isinstance(value, dict):
        return {str(key): _structure(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return type(value)(_structure(part) for part in value)
    tensor = value if isinstance(value, keras.KerasTensor) else np.asarray(value)
    return Leaf(str(tensor.dtype), tuple(tensor.shape[1:]))
