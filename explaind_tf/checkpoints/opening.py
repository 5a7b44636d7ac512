"""`open_checkpoints`: makes a run of checkpoint files and a model."""

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
from explaind_tf.levels import PATH
from explaind_tf.recording.checks import check_variables
from explaind_tf.recording.exporting.declared_inputs import input_structure
from explaind_tf.recording.exporting.pure_functions import traced_forward
from explaind_tf.recording.exporting.variable_specs import variable_specs
from explaind_tf.runs.format.description import UNKNOWN_OPTIMIZER
from explaind_tf.runs.format.manifest import COMPLETE, Manifest
from explaind_tf.runs.graphs.loaded import ForwardGraph
from explaind_tf.runs.series import find_checkpoints

_WAY_ON = "Give some inputs with a batch dimension: open_checkpoints(..., inputs=x[:1])."


def open_checkpoints(
    checkpoints: str | Path | Iterable[str | Path], model: keras.Model, *, inputs: Any = None
) -> CheckpointRun:
    """Open saved checkpoints of a model that was never recorded, as a run with step, layer and parameter axes.

    Let z_s be all floating-point variables of checkpoint s, and Φ_s(x) = ∫₀¹ ∂f/∂z (x; z_s + t(z_{s+1} − z_s)) dt. Then

        f(z_N) − f(z_0) = Σ_s Φ_s · (z_{s+1} − z_s) = weights + state + residual

    holds exactly. ``weights`` is the effect of the trainable weights. ``state`` is the effect of the other variables
    (BatchNorm statistics; weights of layers that the model has frozen). The equation holds on any path. This path goes
    straight from each checkpoint to the next, in all variables, while training took a winding path. The shorter the
    steps, the closer the entries of layers are to those on the path of training.

    Parameters
    ----------
    checkpoints : str, Path or iterable of them
        A list of paths in the order of training, or a pattern whose matches are sorted by the numbers in their names
        (``epoch-2`` before ``epoch-10``). Each is a ``.weights.h5``, ``.keras`` or ``.h5`` file, the prefix of a
        TensorFlow checkpoint, or the directory of a SavedModel. Only weights are read, and nothing is executed.
    model : keras.Model
        The model that was saved, built. It gives the functions, in inference mode. Its own weights do not matter and
        are not changed. The run uses it to read the checkpoints, as long as the run is used.
    inputs : array or nested structure of arrays, optional
        Some inputs with a batch dimension. A subclassed model needs them, since it does not declare its inputs.

    Returns
    -------
    CheckpointRun
        Step s leads from ``run.checkpoints[s]`` to ``run.checkpoints[s + 1]``. Two checkpoints are held in memory, and
        the point at which the path ends.
        ``run.attribute`` and ``run.plan`` are those of :class:`Run`. Questions that need samples are refused.

    Raises
    ------
    RunFormatError
        If a checkpoint cannot be read, or does not fit the model.
    RefusedError
        If the model cannot be differentiated by its variables.
    ValueError
        If there are fewer than two checkpoints, or one of them twice.
    TypeError
        If ``model`` is not a ``keras.Model``.
    """
    paths = find_checkpoints(checkpoints)
    _check_model(model)
    of_inputs = input_structure(model, inputs, _WAY_ON)
    forward, outputs = traced_forward(model, of_inputs)
    manifest = Manifest(
        run_id="",
        created=datetime.now(UTC).isoformat(),
        status=COMPLETE,
        variables=variable_specs(model.trainable_variables),
        state=variable_specs(model.non_trainable_variables),
        optimizer=UNKNOWN_OPTIMIZER,
        optimizer_state=(),
        every=1,
        loss={},
        inputs=of_inputs,
        targets=(),
        weights=None,
        outputs=outputs,
        level=PATH,
        environment={
            "explaind_tf": names.VERSION,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        },
        graphs=(),
        shards=(),
    )
    # Seeds and counters do not affect a forward pass in inference mode, and most formats do not hold them.
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
                f"{path}: {variable.path!r} differs from its value in the model. A Normalization layer computes with "
                f"statistics outside of its variables, so the model must hold them, and they must be the same in all "
                f"checkpoints. Call model.load_weights(...) on the first checkpoint, and leave out checkpoints saved after "
                f"another adapt()."
            )
    return values


def _check_model(model: Any) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be the keras.Model that was saved; got {type(model).__name__}.")
    if not model.built:
        raise RefusedError(
            f"The model {model.name!r} has no weights yet: call it on a batch of inputs once, or call model.build(...)."
        )
    check_variables(model)
