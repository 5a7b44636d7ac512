"""The weights of one checkpoint, in the order of a model's variables.

The model's own weights are not changed. Nothing is unpickled, and no configuration is deserialised. Only the file of
weights is read from a ``.keras`` archive, and only the variables from a SavedModel.
"""

import math
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np

from explaind_tf.checkpoints.hdf5_files import stored_weights
from explaind_tf.checkpoints.objects import read_objects
from explaind_tf.errors import RunFormatError
from explaind_tf.runs.storage.archives import check_ratio

_WEIGHTS_IN_ARCHIVE = "model.weights.h5"
# Numbers of a file beside weights and twice as many, at most.
_FEW = 10_000
_FORMS = (
    ".weights.h5, .keras, .h5, the prefix of a tf.train.Checkpoint (there is a file PREFIX.index) or the directory of a "
    "SavedModel"
)


def read_weights(path: Path, model: keras.Model, constants: list[np.ndarray | None]) -> list[np.ndarray]:
    """Return the values of a checkpoint: trainable variables, then non-trainable ones.

    Parameters
    ----------
    path : Path
        A file, the prefix of a TensorFlow checkpoint, or the directory of a SavedModel.
    model : keras.Model
        Built model, with the structure of the saved one.
    constants : list of np.ndarray or None
        For each variable, its value if the checkpoint may lack it (seeds), None if the checkpoint must hold it.

    Raises
    ------
    RunFormatError
        If the checkpoint cannot be read or does not fit. The message names the file, what was found and what is needed.
    """
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    found = _read(path, model)
    missing = [
        variable.path
        for variable, constant in zip(variables, constants, strict=True)
        if constant is None and id(variable) not in found
    ]
    if missing:
        raise RunFormatError(
            f"{path} lacks {len(missing)} of the model's {len(variables)} variables, such as {missing[:3]}. Give the model "
            f"that these checkpoints were saved from, and checkpoints that hold all of its weights."
        )
    return [
        constant if constant is not None else _as(variable, found[id(variable)])
        for variable, constant in zip(variables, constants, strict=True)
    ]


def _as(variable: keras.Variable, value: np.ndarray) -> np.ndarray:
    return np.asarray(value).astype(variable.numpy().dtype, copy=False)


def _read(path: Path, model: keras.Model) -> dict[int, np.ndarray]:
    """Return the values of the model's variables that a checkpoint holds, by the ``id`` of the variable."""
    if (path / "saved_model.pb").is_file():
        return read_objects(path, path / "variables" / "variables", model)
    if path.is_file() and path.suffix in (".h5", ".hdf5"):
        return _read_hdf5(path, path, model)
    if path.is_file() and path.suffix == ".keras":
        with _weights_of_archive(path) as weights:
            return _read_hdf5(path, weights, model)
    if path.with_name(path.name + ".index").is_file():
        return read_objects(path, path, model)
    what = "is a directory without saved_model.pb" if path.is_dir() else "is of another form"
    raise RunFormatError(
        f"{path} {what if path.exists() else 'does not exist'}. A checkpoint is one of: {_FORMS}."
    )


@contextmanager
def _weights_of_archive(path: Path) -> Iterator[Path]:
    """Unpack only the file of weights of a ``.keras`` archive. It exists as long as the context."""
    with tempfile.TemporaryDirectory(prefix="explaind_tf-") as directory:
        yield _unpacked(path, directory)


def _unpacked(path: Path, directory: str) -> Path:
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo(_WEIGHTS_IN_ARCHIVE)
            check_ratio(member)
            return Path(archive.extract(member, directory))
    except KeyError as error:
        raise RunFormatError(
            f"{path} holds no {_WEIGHTS_IN_ARCHIVE}. Save the model in one file (without max_shard_size)."
        ) from error
    except (
        Exception
    ) as error:  # zipfile raises many kinds of errors for a damaged archive, or one with a password
        raise RunFormatError(
            f"{path} is no readable .keras archive: {error}. Restore it from a copy, or leave this checkpoint out."
        ) from error


def _read_hdf5(path: Path, file: Path, model: keras.Model) -> dict[int, np.ndarray]:
    """Read a file of weights as ``model.load_weights`` does, but into a scope that is discarded."""
    try:
        # Before Keras allocates anything. Besides weights, a file may hold values of metrics.
        stored, own = stored_weights(file), sum(math.prod(variable.shape) for variable in model.variables)
        if stored > 2 * own + _FEW:
            raise ValueError(f"it holds {stored:,} weights, and the model has {own:,}")
        with keras.StatelessScope() as scope, warnings.catch_warnings():
            # Keras may skip weights with a warning. They are missing afterwards, which raises an error with their names.
            warnings.simplefilter("ignore")
            model.load_weights(str(file), **_skipped_optimizers(file, model))
    except Exception as error:  # h5py and Keras raise many kinds of errors for a damaged or foreign file
        raise RunFormatError(f"{path} cannot be read into the model {model.name!r}: {error}") from error
    finally:
        _restore_normalization(model)
    taken = sum(np.size(value) for value in scope.state_mapping.values())
    if taken < stored:
        raise RunFormatError(
            f"{path} holds {stored:,} weights, of which the model {model.name!r} takes only {taken:,}. Give the model that "
            f"these checkpoints were saved from."
        )
    values = {id(variable): scope.get_current_value(variable) for variable in model.variables}
    return {key: np.asarray(value) for key, value in values.items() if value is not None}


def _skipped_optimizers(file: Path, model: keras.Model) -> dict[str, list[keras.optimizers.Optimizer]]:
    """Return the argument that makes Keras skip optimizers, since loading them would create variables."""
    if not file.name.endswith(".weights.h5"):
        return {}  # the form before Keras 3, with which optimizers are not loaded
    values = [value for layer in model._flatten_layers() for value in vars(layer).values()]
    return {"objects_to_skip": [v for v in values if isinstance(v, keras.optimizers.Optimizer)]}


def normalizations(model: keras.Model) -> list[keras.layers.Normalization]:
    """Return the layers whose forward pass uses statistics that are stored outside of their variables."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Normalization)]


def _restore_normalization(model: keras.Model) -> None:
    """Recompute from the layers' own variables what loading had computed from the loaded ones."""
    for layer in normalizations(model):
        layer.finalize_state()
