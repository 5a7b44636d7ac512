"""Weights in TensorFlow checkpoints, matched with a model by the object graph and read without restoring anything."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from explaind_tf.errors import RunFormatError
from explaind_tf.runs.storage.tensor_bundle import check_bundle

_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "VARIABLE_VALUE"


def read_objects(path: Path, prefix: Path, model: keras.Model) -> dict[int, np.ndarray]:
    """Return the values of a model's variables that a TensorFlow checkpoint holds, by the ``id`` of the variable.

    The checkpoint may hold the model itself, an object with the model as an attribute of any name, or a list of its
    variables (as ``model.export`` saves it). ``save_weights`` of Keras 2 may also have saved it.

    Parameters
    ----------
    path : Path
        Name of the checkpoint in errors.
    prefix : Path
        Common prefix of its files.
    model : keras.Model
        Built model. Only its structure is used.

    Raises
    ------
    RunFormatError
        If the checkpoint is damaged, or holds weights that the model does not have.
    """
    check_bundle(prefix)
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        graph = TrackableObjectGraph.FromString(reader.get_tensor(_GRAPH))
        view = tf.train.CheckpointView(str(prefix))
        keys, unmatched = _best_match(view, graph, model)
        if unmatched:
            raise RunFormatError(
                f"{path} holds {len(unmatched)} variables that the model does not have, such as {unmatched[:3]}. Give the "
                f"model that these checkpoints were saved from."
            )
        return {identity: reader.get_tensor(key) for identity, key in keys.items()}
    except RunFormatError:
        raise
    except Exception as error:  # TensorFlow raises many kinds of errors for a damaged file
        raise RunFormatError(
            f"{path} cannot be read as a TensorFlow checkpoint with an object graph, as tf.train.Checkpoint writes it: "
            f"{error}"
        ) from error


def _best_match(view: Any, graph: Any, model: keras.Model) -> tuple[dict[int, str], list[str]]:
    """Return the keys of the model's variables by ``id``, and the names of variables that the model lacks."""
    variables = {id(variable): variable for variable in model.variables}
    best: tuple[dict[int, str], list[str]] = ({}, [])
    for start, root in _roots(view, model):
        matched = view.match(root)
        nodes = {id(found): node for node, found in matched.items() if id(found) in variables}
        keys = {identity: key for identity, node in nodes.items() if (key := _key(graph, node))}
        if len(keys) > len(best[0]):
            others = [node for node in _reachable(view, start) if node not in set(nodes.values())]
            best = keys, [_name(graph, node) for node in others if _key(graph, node)]
    return best


def _roots(view: Any, model: keras.Model) -> Iterator[tuple[int, Any]]:
    """Yield objects that may have been saved in the checkpoint, each with the node of the model."""
    children = view.children(0)
    yield 0, model
    yield 0, _numbered(model)
    for name, node in children.items():
        yield node, _holding({name: model})
        yield node, _holding({name: _numbered(model)})
    if "variables" in children:
        yield children["variables"], _holding({"variables": list(model.variables)})


def _numbered(layer: Any) -> Any:
    """Return a layer in the form that Keras 2 tracks: inner layers with weights by number, weights by name."""
    inner = [part for part in getattr(layer, "layers", []) if _has_weights(part)]
    if inner:
        return _holding({f"layer_with_weights-{i}": _numbered(part) for i, part in enumerate(inner)})
    own = {variable.name: variable for variable in layer.variables}
    return _holding(own) if len(own) == len(layer.variables) else layer


def _has_weights(layer: keras.layers.Layer) -> bool:
    """Return whether a layer had weights in Keras 2, in which a seed was not a weight."""
    return any("float" in variable.dtype for variable in layer.variables)


def _holding(attributes: dict[str, Any]) -> Any:
    """Return an object with the given attributes. ``tf.train.Checkpoint`` would treat some names specially."""
    holder = tf.__internal__.tracking.AutoTrackable()
    for name, value in attributes.items():
        setattr(holder, name, value)
    return holder


def _reachable(view: Any, start: int) -> Sequence[int]:
    """Return the nodes below a node, without those of optimizers, whose variables are not weights of the model."""
    found, waiting = {start}, [start]
    while waiting:
        children = view.children(waiting.pop()).items()
        new = {child for name, child in children if "optimizer" not in name} - found
        found |= new
        waiting.extend(new)
    return sorted(found)


def _key(graph: Any, node: int) -> str | None:
    values = [part.checkpoint_key for part in graph.nodes[node].attributes if part.name == _VALUE]
    return values[0] if values else None


def _name(graph: Any, node: int) -> str:
    part = graph.nodes[node].attributes[0]
    return part.full_name or part.checkpoint_key
