"""Weights in checkpoints of TensorFlow: matched with a model by the graph of objects, without restoring anything."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from explaind_tf.errors import RunFormatError

_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "VARIABLE_VALUE"


def read_objects(path: Path, prefix: Path, model: keras.Model) -> dict[int, np.ndarray]:
    """Return the values of a model's variables, by their ``id``, as far as a TensorFlow checkpoint holds them.

    It may have been saved of the model itself, of an object with the model as an attribute under any name, of a list of
    its variables (as ``model.export`` does), or by ``save_weights`` of Keras 2.

    Parameters
    ----------
    path : Path
        What to call the checkpoint in errors.
    prefix : Path
        What its files begin with.
    model : keras.Model
        Built. Only its structure is looked at.

    Raises
    ------
    RunFormatError
        If the checkpoint is damaged, or holds weights that the model does not have.
    """
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
    except Exception as error:  # whatever TensorFlow trips over in a damaged file
        raise RunFormatError(
            f"{path} cannot be read as a TensorFlow checkpoint with a graph of objects (tf.train.Checkpoint): {error}"
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
    """Yield what the checkpoint may have been saved of, each with the node at which the model would be."""
    children = view.children(0)
    yield 0, model
    yield 0, _numbered(model)
    for name, node in children.items():
        yield node, _holding({name: model})
        yield node, _holding({name: _numbered(model)})
    if "variables" in children:
        yield children["variables"], _holding({"variables": list(model.variables)})


def _numbered(layer: Any) -> Any:
    """Return a layer as Keras 2 tracks it: layers with weights by number, weights by name."""
    inner = [part for part in getattr(layer, "layers", []) if _has_weights(part)]
    if inner:
        return _holding({f"layer_with_weights-{i}": _numbered(part) for i, part in enumerate(inner)})
    own = {variable.name: variable for variable in layer.variables}
    return _holding(own) if len(own) == len(layer.variables) else layer


def _has_weights(layer: keras.layers.Layer) -> bool:
    """Return whether a layer had weights in Keras 2, where a seed was none."""
    return any("float" in variable.dtype for variable in layer.variables)


def _holding(attributes: dict[str, Any]) -> Any:
    """Return an object of such attributes. ``tf.train.Checkpoint`` gives some names another meaning."""
    holder = tf.__internal__.tracking.AutoTrackable()
    for name, value in attributes.items():
        setattr(holder, name, value)
    return holder


def _reachable(view: Any, start: int) -> Sequence[int]:
    """Return the nodes below one, but for optimizers, whose variables are no weights of the model."""
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
