"""SavedModels loaded without trust: first their bytes are inspected, then a copy of what was inspected is loaded."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from explaind_tf.errors import RunFormatError
from explaind_tf.runs.graphs.graph_files import GRAPH_FILE, parsed
from explaind_tf.runs.graphs.inspection import Finding, in_meta_graph, savers_of, told
from explaind_tf.runs.graphs.possible_sizes import check_sizes
from explaind_tf.runs.storage.tensor_bundle import check_bundle

_VARIABLES = "variables"


def load_checked(path: Path, *, trust: bool = False) -> Any:
    """Load a SavedModel whose operations are all allowed.

    Parameters
    ----------
    path : Path
        The directory. No initialiser of it is run, and nothing but its graph and the values of its variables is read.
    trust : bool
        Whether operations that are not allowed are accepted. Initialisers are run then, too.

    Raises
    ------
    RunFormatError
        If it is no such SavedModel, states sizes that cannot be, or holds other operations. The message names them.
    """
    saved = parsed(path, SavedModel)
    check_sizes(saved, str(path / GRAPH_FILE))
    has_variables = any(
        n.WhichOneof("kind") == "variable" for n in saved.meta_graphs[0].object_graph_def.nodes
    )
    if has_variables:
        check_bundle(path / _VARIABLES / _VARIABLES)
    if trust:
        return tf.saved_model.load(str(path))
    findings = in_meta_graph(saved.meta_graphs[0])
    if findings:
        raise RunFormatError(
            f"{path} holds what a graph of a run may not hold: {told(findings)}. Nothing of it was run. If you recorded it "
            f"yourself, or trust who did as you would trust a program: open_run(..., trust_graph=True)."
        )
    with tempfile.TemporaryDirectory(prefix="explaind_tf-") as directory:
        copy = Path(directory)
        (copy / GRAPH_FILE).write_bytes(stripped(saved).SerializeToString())
        if has_variables:
            shutil.copytree(path / _VARIABLES, copy / _VARIABLES, copy_function=_link_or_copy)
        # Without variables, there are no values to read.
        options = tf.saved_model.LoadOptions(experimental_skip_checkpoint=not has_variables)
        return tf.saved_model.load(directory, options=options)


def stripped(saved: SavedModel) -> SavedModel:
    """Return a SavedModel with the functions and constants of another one, without what only TensorFlow's tools need.

    That is the main graph, where initialisers and signatures are, and the functions that save and restore.
    """
    copy = SavedModel()
    copy.CopyFrom(saved)
    meta = copy.meta_graphs[0]
    savers = savers_of(meta)
    # The loader takes the values of constants from the main graph.
    constants = [node for node in meta.graph_def.node if node.op == "Const"]
    functions = [each for each in meta.graph_def.library.function if each.signature.name not in savers]
    _replace(meta.graph_def.node, constants)
    _replace(meta.graph_def.library.function, functions)
    for field in ("saver_def", "signature_def", "collection_def"):
        meta.ClearField(field)
    return copy


def strip_file(path: Path) -> list[Finding]:
    """Strip a SavedModel that was just written, and return what is left in it that is not allowed.

    Its fingerprint, which was that of the whole, is removed.
    """
    saved = stripped(parsed(path, SavedModel))
    (path / GRAPH_FILE).write_bytes(saved.SerializeToString(deterministic=True))
    (path / "fingerprint.pb").unlink(missing_ok=True)
    return in_meta_graph(saved.meta_graphs[0])


def _replace(repeated: Any, values: list[Any]) -> None:
    kept = [type(value).FromString(value.SerializeToString()) for value in values]
    del repeated[:]
    repeated.extend(kept)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, target)
