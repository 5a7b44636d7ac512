"""The weights of one checkpoint, in the order of a model's variables. The model's own weights are left alone.

Nothing is unpickled and no configuration is deserialised: of a ``.keras`` archive only the file of weights is read, of a
SavedModel only its variables.
"""

import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import keras
import numpy as np

from explaind_tf.checkpoints.objects import read_objects
from explaind_tf.errors import RunFormatError

_WEIGHTS_IN_ARCHIVE = "model.weights.h5"
_FORMS = (
    ".weights.h5, .keras, .h5, the prefix of a tf.train.Checkpoint (there is a file PREFIX.index) or the directory of a "
    "SavedModel"
)


def read_weights(path: Path, model: keras.Model, constants: list[np.ndarray | None]) -> list[np.ndarray]:
    """Return the values of a checkpoint: trainable variables, then the others.

    Parameters
    ----------
    path : Path
        A file, the prefix of a TensorFlow checkpoint, or the directory of a SavedModel.
    model : keras.Model
        Built, with the structure of the one that was saved.
    constants : list of np.ndarray or None
        For each variable its value where the checkpoint may lack it (seeds), None where it must not.

    Raises
    ------
    RunFormatError
        With the file, what was found in it and what is needed.
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
            f"that these checkpoints were saved from, and checkpoints of all of its weights."
        )
    return [
        constant if constant is not None else _as(variable, found[id(variable)])
        for variable, constant in zip(variables, constants, strict=True)
    ]


def _as(variable: keras.Variable, value: np.ndarray) -> np.ndarray:
    return np.asarray(value).astype(variable.numpy().dtype, copy=False)


def _read(path: Path, model: keras.Model) -> dict[int, np.ndarray]:
    """Return the values of the model's variables by their ``id``, as far as a checkpoint holds them."""
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
    """Unpack the file of weights of a ``.keras`` archive, for the time of the context, and nothing else."""
    with tempfile.TemporaryDirectory(prefix="explaind_tf-") as directory:
        try:
            with zipfile.ZipFile(path) as archive:
                yield Path(archive.extract(_WEIGHTS_IN_ARCHIVE, directory))
        except KeyError as error:
            raise RunFormatError(
                f"{path} holds no {_WEIGHTS_IN_ARCHIVE}. Save the model in one file (without max_shard_size)."
            ) from error
        except (zipfile.BadZipFile, OSError, EOFError) as error:
            raise RunFormatError(f"{path} is no readable .keras archive: {error}.") from error


def _read_hdf5(path: Path, file: Path, model: keras.Model) -> dict[int, np.ndarray]:
    """Read a file of weights as ``model.load_weights`` does, but into a scope that is thrown away."""
    try:
        stored = _stored_weights(file)
        with keras.StatelessScope() as scope, warnings.catch_warnings():
            # What Keras leaves out with a warning is missing in the end, which is refused with the names.
            warnings.simplefilter("ignore")
            model.load_weights(str(file), **_skipped_optimizers(file, model))
    except Exception as error:  # whatever h5py or Keras trips over in a damaged or foreign file
        raise RunFormatError(f"{path} cannot be read into the model {model.name!r}: {error}") from error
    finally:
        _restore_normalization(model)
    taken = sum(np.size(value) for value in scope.state_mapping.values())
    if taken < stored:
        raise RunFormatError(
            f"{path} holds {stored:,} weights, of which the model {model.name!r} takes {taken:,}. Give the model that these "
            f"checkpoints were saved from."
        )
    values = {id(variable): scope.get_current_value(variable) for variable in model.variables}
    return {key: np.asarray(value) for key, value in values.items() if value is not None}


def _skipped_optimizers(file: Path, model: keras.Model) -> dict[str, list[keras.optimizers.Optimizer]]:
    """Return the argument that keeps Keras from loading optimizers, which would create variables."""
    if not file.name.endswith(".weights.h5"):
        return {}  # of the form before Keras 3, whose optimizers are not loaded along
    values = [value for layer in model._flatten_layers() for value in vars(layer).values()]
    return {"objects_to_skip": [v for v in values if isinstance(v, keras.optimizers.Optimizer)]}


def _stored_weights(file: Path) -> int:
    """Return the number of weights in a file, optimizers left out."""
    sizes: list[int] = []

    def count(name: str, item: h5py.Group | h5py.Dataset) -> None:
        groups = name.split("/")
        is_optimizers = any(part.endswith(("optimizer", "optimizer_weights")) for part in groups)
        if isinstance(item, h5py.Dataset) and not is_optimizers:
            sizes.append(item.size)

    with h5py.File(file, "r") as stored:
        stored.visititems(count)
    return sum(sizes)


def normalizations(model: keras.Model) -> list[keras.layers.Normalization]:
    """Return the layers whose statistics a forward pass takes from elsewhere than from their variables."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Normalization)]


def _restore_normalization(model: keras.Model) -> None:
    """Derive again from their own variables what layers derived from those that they loaded."""
    for layer in normalizations(model):
        layer.finalize_state()
