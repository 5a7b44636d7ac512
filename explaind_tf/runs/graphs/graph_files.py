"""SavedModels as bytes: what they hold, read without TensorFlow."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from explaind_tf.errors import RunFormatError
from explaind_tf.runs.graphs.inspection import in_meta_graph
from explaind_tf.runs.storage.messages import message_class

GRAPH_FILE = "saved_model.pb"
# Names of functions.
FORWARD = "forward"
SAMPLE_LOSSES = "sample_losses"
TOKEN_LOSSES = "token_losses"
LOSS_SCALES = "loss_scales"
PENALTY = "penalty"
CUSTOM_GRADIENTS = "custom_gradients"


@dataclass(frozen=True)
class GraphContents:
    """What a directory of SavedModels holds.

    Attributes
    ----------
    names : frozenset of str
        The attributes of the SavedModel in the directory itself: its functions, and others.
    unlisted : tuple of str
        What the graphs of all SavedModels hold beside the operations that a graph may hold, see
        :func:`explaind_tf.runs.graphs.inspection.in_meta_graph`.
    """

    names: frozenset[str]
    unlisted: tuple[str, ...]

    @classmethod
    def of(cls, directory: Path) -> "GraphContents":
        """Return what a directory holds. Nothing of it is loaded.

        Raises
        ------
        RunFormatError
            If a file is missing, or of another form.
        """
        files = sorted({directory / GRAPH_FILE, *directory.rglob(GRAPH_FILE)})
        metas = {file: parsed(file.parent).meta_graphs[0] for file in files}
        root = metas[directory / GRAPH_FILE].object_graph_def.nodes[:1]
        unlisted = [str(finding) for meta in metas.values() for finding in in_meta_graph(meta)]
        return cls(frozenset(child.local_name for node in root for child in node.children), tuple(unlisted))


def parsed(path: Path, message: Any = None) -> Any:
    """Return the message that a SavedModel's file holds.

    Parameters
    ----------
    path : Path
        The directory of the SavedModel.
    message : type, optional
        TensorFlow's own class ``SavedModel``, which its other parts need. Default: a class with the same fields.

    Raises
    ------
    RunFormatError
        If there is no such file, or it is of another form.
    """
    message = message or message_class("tensorflow.SavedModel")
    try:
        saved = message.FromString((path / GRAPH_FILE).read_bytes())
    except (OSError, DecodeError) as error:
        raise RunFormatError(
            f"{path / GRAPH_FILE} cannot be read: {error}. Restore it from a copy."
        ) from error
    if len(saved.meta_graphs) != 1 or not saved.meta_graphs[0].HasField("object_graph_def"):
        raise RunFormatError(
            f"{path / GRAPH_FILE} is not of the form that a PathLogger writes: it has {len(saved.meta_graphs)} graphs, and "
            f"one with objects is needed. Restore it from a copy."
        )
    return saved
