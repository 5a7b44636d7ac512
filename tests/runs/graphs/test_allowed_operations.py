"""Graphs that touch the world are refused before TensorFlow loads them, wherever they hide it, and at `fit`."""

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.op_def_pb2 import OpList
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.client import pywrap_tf_session
from tensorflow.python.framework import op_def_registry
from typer.testing import CliRunner

import explaind_tf as xtf
from explaind_tf.cli import app
from explaind_tf.errors import RefusedError, RunFormatError
from explaind_tf.recording.exporting.purity import refuse_unlisted
from explaind_tf.runs.graphs.allowed_operations import ALLOWED
from explaind_tf.runs.graphs.inspection import in_graph
from explaind_tf.runs.storage.digests import describe_tree
from tests.runs.damage import edit_manifest
from tests.runs.graphs.world_operations import WORLD

GRAPHS = "graphs"
X = np.ones((2, 3), np.float32)


def traced(body: Callable[[], Any]) -> Any:
    """A concrete function without arguments that does something."""

    @tf.function(autograph=False)
    def act() -> tf.Tensor:
        body()
        return tf.constant(0.0)

    return act.get_concrete_function()


# Where a graph may hide what it does: functions that make a function of it.
NESTED: dict[str, Callable[[Callable[[], Any]], Any]] = {
    "main graph": traced,
    "function of a function": lambda body: traced(lambda: traced(lambda: traced(body)())()),
    "branch never taken": lambda body: traced(
        lambda: tf.cond(tf.random.uniform(()) > 2.0, lambda: traced(body)(), lambda: tf.constant(0.0))
    ),
    "body of a loop": lambda body: traced(
        lambda: tf.while_loop(
            lambda i: i < 1, lambda i: i + 1 + tf.cast(traced(body)(), tf.int32), [tf.constant(0)]
        )
    ),
}
# Where a file may hold a function beside those that others call.
Forge = Callable[[Any, str], None]
ENTRIES: dict[str, Forge] = {}


def entry(forge: Forge) -> Forge:
    ENTRIES[forge.__name__.replace("_", " ")] = forge
    return forge


@entry
def in_the_forward_pass(meta: Any, name: str) -> None:
    forward = next(f for f in meta.graph_def.library.function if "forward" in f.signature.name)
    _call(forward.node_def.add(), name)


@entry
def in_the_main_graph(meta: Any, name: str) -> None:
    _call(meta.graph_def.node.add(), name)


@entry
def as_a_gradient(meta: Any, name: str) -> None:
    meta.graph_def.library.registered_gradients.add(gradient_func=name, registered_op_type="Tanh")


@entry
def never_called(meta: Any, name: str) -> None:
    """The library holds it, and nothing else names it."""


@entry
def as_initialiser(meta: Any, name: str) -> None:
    node = _call(meta.graph_def.node.add(), name)
    meta.collection_def["saved_model_main_op"].node_list.value.append(node.name)
    signature = meta.signature_def["__saved_model_init_op"]
    signature.outputs["__saved_model_init_op"].name = node.name


@entry
def as_what_saves(meta: Any, name: str) -> None:
    """Savers are exempt only where nothing else calls them."""
    forward = next(f for f in meta.graph_def.library.function if "forward" in f.signature.name)
    _call(forward.node_def.add(), name)
    node = _call(meta.graph_def.node.add(), name)
    meta.saver_def.save_tensor_name, meta.saver_def.restore_op_name = f"{node.name}:0", node.name


PLACES = list(itertools.product(NESTED, ENTRIES))


def _call(node: Any, name: str) -> Any:
    node.op, node.name = "StatefulPartitionedCall", "called"
    node.attr["f"].func.name = name
    return node


def _custom_optimizer(meta: Any) -> None:
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.custom_optimizers.add(name="own")
    meta.graph_def.node.add().attr["config_proto"].s = config.SerializeToString()


def _handle(meta: Any) -> None:
    meta.graph_def.node.add().attr["value"].tensor.dtype = tf.resource.as_datatype_enum


# What else a file may not hold, by what is said of it.
OTHERS: dict[str, Callable[[Any], Any]] = {
    "an object of the kind 'resource'": lambda meta: meta.object_graph_def.nodes.add(resource={}),
    "an object of the kind 'asset'": lambda meta: meta.object_graph_def.nodes.add(asset={}),
    "an object of the class 'own'": lambda meta: meta.object_graph_def.nodes.add(
        user_object={"identifier": "own"}
    ),
    "an object of the registered class 'own'": lambda meta: meta.object_graph_def.nodes.add(
        registered_name="own"
    ),
    "a file beside the graph": lambda meta: meta.asset_file_def.add(filename="../a"),
    "a function with the name of the operation Tanh": lambda meta: meta.graph_def.library.function.add(
        signature={"name": "Tanh"}
    ),
    "a gradient by the function 'none'": lambda meta: meta.graph_def.library.gradient.add(
        gradient_func="none"
    ),
    "settings of a call: custom_optimizers": _custom_optimizer,
    "an operation for the device": lambda meta: meta.graph_def.node.add(
        op="NoOp", device="/job:worker/task:1"
    ),
    "a call of 'none'": lambda meta: _call(meta.graph_def.node.add(), "none"),
    "a constant that is a handle": _handle,
}


def forged(run_dir: Path, concrete: Any, forge: Forge) -> None:
    """Give the graph of a run another function, and the manifest the digests that fit, as an attacker would."""
    path = run_dir / GRAPHS / "saved_model.pb"
    saved = SavedModel.FromString(path.read_bytes())
    meta = saved.meta_graphs[0]
    meta.graph_def.library.function.extend(concrete.graph.as_graph_def().library.function)
    meta.graph_def.library.function.add().CopyFrom(concrete.function_def)
    forge(meta, concrete.function_def.signature.name)
    write(run_dir, saved)


def write(run_dir: Path, saved: SavedModel) -> None:
    path = run_dir / GRAPHS / "saved_model.pb"
    path.write_bytes(saved.SerializeToString())
    files = [vars(digest) for digest in describe_tree(run_dir / GRAPHS)]
    edit_manifest(run_dir, lambda body: body.update(graphs=files))


def refused(run_dir: Path, name: str) -> None:
    """Assert that a run opens, and that its graph is refused by this name."""
    run = xtf.open_run(run_dir)
    assert any(finding.startswith(name) for finding in run.unlisted_operations)
    with pytest.raises(
        RunFormatError, match=rf"may not hold: .*{re.escape(name)}.*Nothing of it was run.*trust_graph=True"
    ):
        run.attribute(X)


class TestTheList:
    def test_it_names_operations_that_exist(self):
        assert {name for name in ALLOWED if op_def_registry.get(name) is None} == set()

    def test_no_operation_is_named_as_functions_are(self) -> None:
        """Functions whose names end with a number are not looked up among the operations."""
        operations = OpList.FromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
        assert len(operations.op) > len(ALLOWED)
        assert [each.name for each in operations.op if re.search(r"_[0-9]+$", each.name)] == []

    def test_there_are_enough_operations_that_touch_the_world(self):
        assert len(WORLD) >= 30
        assert not ALLOWED & (set(WORLD) - {"PrintV2"})


class TestOpening:
    @pytest.mark.parametrize("name", WORLD)
    def test_each_operation_is_refused_by_name(self, copied: Path, tmp_path: Path, name: str):
        target = tmp_path / "target"
        forged(copied, traced(lambda: WORLD[name](str(target))), in_the_forward_pass)
        refused(copied, name)
        assert list(tmp_path.iterdir()) == [copied]

    @pytest.mark.parametrize(("nested", "entered"), PLACES)
    def test_wherever_it_hides(self, copied: Path, tmp_path: Path, nested: str, entered: str):
        body = lambda: WORLD["WriteFile"](str(tmp_path / "target"))  # noqa: E731
        forged(copied, NESTED[nested](body), ENTRIES[entered])
        refused(copied, "WriteFile")
        assert list(tmp_path.iterdir()) == [copied]

    @pytest.mark.nightly
    @pytest.mark.parametrize(("nested", "entered"), PLACES)
    def test_all_of_them_wherever_they_hide(self, copied: Path, tmp_path: Path, nested: str, entered: str):
        original = (copied / GRAPHS / "saved_model.pb").read_bytes()
        for name, make in WORLD.items():
            write(copied, SavedModel.FromString(original))
            forged(copied, NESTED[nested](lambda make=make: make(str(tmp_path / "target"))), ENTRIES[entered])
            refused(copied, name)
        assert list(tmp_path.iterdir()) == [copied]

    def test_trusted_it_runs(self, copied: Path, tmp_path: Path):
        """The attack is real: who trusts the graph runs it."""
        target = tmp_path / "target"
        module = tf.saved_model.load(str(copied / GRAPHS))
        specs = [
            tf.TensorSpec(t.shape, t.dtype, f"argument_{i}") for i, t in enumerate(module.forward.inputs)
        ]

        def forward(*arguments: tf.Tensor) -> list[tf.Tensor]:
            with tf.control_dependencies([tf.io.write_file(str(target), "written")]):
                outputs = module.forward(*arguments)
                return [tf.identity(value) for value in (outputs if isinstance(outputs, list) else [outputs])]

        hostile = tf.Module()
        for name in ("sample_losses", "loss_scales", "penalty"):
            setattr(hostile, name, getattr(module, name))
        hostile.forward = tf.function(forward, input_signature=specs, autograph=False).get_concrete_function()
        tf.saved_model.save(hostile, str(tmp_path / "saved"))
        write(copied, SavedModel.FromString((tmp_path / "saved" / "saved_model.pb").read_bytes()))
        refused(copied, "WriteFile")
        assert not target.exists()
        xtf.open_run(copied, trust_graph=True).attribute(X, axes=())
        assert target.read_text() == "written"

    def test_info_names_it_and_loads_nothing(self, copied: Path, tmp_path: Path):
        forged(copied, traced(lambda: WORLD["WriteFile"](str(tmp_path / "target"))), in_the_forward_pass)
        result = CliRunner().invoke(app, ["info", str(copied), "--json"])
        assert result.exit_code == 0
        assert "WriteFile" in json.loads(result.stdout)["unlisted_operations"][0]

    @pytest.mark.parametrize("what", OTHERS)
    def test_what_else_a_file_may_not_hold(self, copied: Path, what: str):
        saved = SavedModel.FromString((copied / GRAPHS / "saved_model.pb").read_bytes())
        OTHERS[what](saved.meta_graphs[0])
        write(copied, saved)
        refused(copied, what)


class TestAtFit:
    @pytest.mark.parametrize("name", WORLD)
    def test_each_operation_is_refused_by_name(self, tmp_path: Path, name: str):
        for where, nest in NESTED.items():
            with pytest.raises(RefusedError, match=rf"holds .*{name}"):
                refuse_unlisted(where, nest(lambda: WORLD[name](str(tmp_path / "target"))))
        assert list(tmp_path.iterdir()) == []

    def test_a_layer_that_writes_is_refused_before_anything_is_recorded(self, run_dir: Path):
        class Noting(keras.layers.Layer):
            def call(self, x: Any) -> Any:
                tf.io.write_file(str(run_dir.parent / "notes"), "called")
                return x

        model = keras.Sequential([keras.Input((3,)), Noting(name="noting"), keras.layers.Dense(2)])
        model.compile(xtf.PathAdam(1e-3), "mse")
        with pytest.raises(RefusedError, match=r"forward holds WriteFile \('.*noting.*'\)"):
            model.fit(X, X[:, :2], verbose=0, callbacks=[xtf.PathLogger(run_dir)])
        assert not run_dir.exists()

    def test_a_loss_that_calls_python_leaves_the_causes(self, run_dir: Path):
        def loss(y: Any, prediction: Any) -> Any:
            seen = tf.numpy_function(lambda values: values, [prediction], tf.float32)
            return tf.reduce_mean((y - prediction) ** 2, -1) + 0.0 * tf.reduce_sum(tf.stop_gradient(seen))

        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        model.compile(xtf.PathAdam(1e-3), loss)
        model.fit(X, X[:, :2], verbose=0, callbacks=[xtf.PathLogger(run_dir, require="cause")])
        run = xtf.open_run(run_dir)
        assert run.level == "cause"
        assert "PyFunc" in run.manifest.level_reason
        run.attribute(X, axes=())

    def test_a_custom_gradient_that_calls_python_leaves_the_causes(self, run_dir: Path):
        @tf.custom_gradient
        def noted(x: tf.Tensor) -> Any:
            return x, lambda upstream: tf.ensure_shape(
                tf.numpy_function(lambda values: values, [upstream], tf.float32), upstream.shape
            )

        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        model.compile(
            xtf.PathAdam(1e-3), lambda y, prediction: tf.reduce_mean((y - noted(prediction)) ** 2, -1)
        )
        model.fit(X, X[:, :2], verbose=0, callbacks=[xtf.PathLogger(run_dir, require="cause")])
        run = xtf.open_run(run_dir)
        assert run.level == "cause"
        assert "PyFunc" in run.manifest.level_reason
        run.attribute(X, axes=())

    def test_what_a_training_step_does_beside_training_costs_only_retraining(self, run_dir: Path):
        class Noting(keras.Sequential):
            def train_step(self, data: Any) -> Any:
                tf.numpy_function(lambda x: x, [data[0]], tf.float32)
                return super().train_step(data)

        model = Noting([keras.Input((3,)), keras.layers.Dense(2)])
        model.compile(xtf.PathAdam(1e-3), "mse")
        model.fit(X, X[:, :2], verbose=0, callbacks=[xtf.PathLogger(run_dir, retrain=True)])
        run = xtf.open_run(run_dir)
        assert run.level == "sample"
        assert "PyFunc" in run.manifest.environment["no_training_step"]

    def test_text_on_the_standard_streams_is_allowed(self):
        assert in_graph(traced(lambda: tf.print("seen")).graph.as_graph_def()) == []
