"""Operations that touch files, the network, Python or the process, each as a function that adds it to a graph."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops

raw = tf.raw_ops
_NUMBERS: dict[str, Any] = {"output_types": [tf.int64], "output_shapes": [()]}


def _range() -> tf.Tensor:
    return raw.RangeDataset(
        start=tf.constant(0, tf.int64),
        stop=tf.constant(2, tf.int64),
        step=tf.constant(1, tf.int64),
        **_NUMBERS,
    )


def _graph_that_writes(path: str) -> bytes:
    with tf.Graph().as_default() as graph:
        tf.io.write_file(path, "hidden")
    return graph.as_graph_def().SerializeToString()


@tf.function(autograph=False)
def _nothing(*_: Any) -> tf.Tensor:
    return tf.constant(0, tf.int64)


WORLD: dict[str, Callable[[str], Any]] = {
    "WriteFile": lambda path: tf.io.write_file(path, "written"),
    "ReadFile": tf.io.read_file,
    "MatchingFiles": lambda path: raw.MatchingFiles(pattern=path),
    "PyFunc": lambda path: tf.numpy_function(lambda: open(path, "w").close(), [], []),
    "EagerPyFunc": lambda path: tf.py_function(lambda: open(path, "w").close(), [], []),
    "PrintV2": lambda path: tf.print("printed", output_stream=f"file://{path}"),
    "SaveV2": lambda path: raw.SaveV2(
        prefix=path, tensor_names=["a"], shape_and_slices=[""], tensors=[tf.zeros(1)]
    ),
    "RestoreV2": lambda path: raw.RestoreV2(
        prefix=path, tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32]
    ),
    "Save": lambda path: raw.Save(filename=path, tensor_names=["a"], data=[tf.zeros(1)]),
    "Restore": lambda path: raw.Restore(file_pattern=path, tensor_name="a", dt=tf.float32),
    "MergeV2Checkpoints": lambda path: raw.MergeV2Checkpoints(
        checkpoint_prefixes=[path], destination_prefix=path, delete_old_dirs=True
    ),
    "DebugIdentity": lambda path: raw.DebugIdentity(input=tf.zeros(1), debug_urls=[f"file://{path}"]),
    "DebugNumericSummary": lambda path: raw.DebugNumericSummary(
        input=tf.zeros(1), debug_urls=[f"file://{path}"]
    ),
    "TextLineDataset": lambda path: raw.TextLineDataset(
        filenames=path, compression_type="", buffer_size=tf.constant(8, tf.int64)
    ),
    "TFRecordDataset": lambda path: raw.TFRecordDataset(
        filenames=path, compression_type="", buffer_size=tf.constant(8, tf.int64)
    ),
    "LMDBDataset": lambda path: raw.LMDBDataset(
        filenames=path, output_types=[tf.string] * 2, output_shapes=[()] * 2
    ),
    "SqlDataset": lambda path: raw.SqlDataset(
        driver_name="sqlite", data_source_name=path, query="select 1", **_NUMBERS
    ),
    "SaveDatasetV2": lambda path: raw.SaveDatasetV2(
        input_dataset=_range(),
        path=path,
        shard_func_other_args=[],
        shard_func=_nothing.get_concrete_function(),
        **_NUMBERS,
    ),
    "LoadDataset": lambda path: raw.LoadDataset(
        path=path, reader_func_other_args=[], reader_func=_nothing.get_concrete_function(), **_NUMBERS
    ),
    "CacheDataset": lambda path: raw.CacheDataset(input_dataset=_range(), filename=path, **_NUMBERS),
    "DatasetFromGraph": lambda path: raw.DatasetFromGraph(graph_def=_graph_that_writes(path)),
    "DataServiceDatasetV2": lambda path: raw.DataServiceDatasetV2(
        dataset_id=tf.constant(0, tf.int64),
        processing_mode="",
        address="127.0.0.1:1",
        protocol="grpc",
        job_name="",
        consumer_index=tf.constant(0, tf.int64),
        num_consumers=tf.constant(0, tf.int64),
        max_outstanding_requests=tf.constant(1, tf.int64),
        iteration_counter=raw.DummyIterationCounter(),
        **_NUMBERS,
    ),
    "CreateSummaryFileWriter": lambda path: raw.CreateSummaryFileWriter(
        writer=raw.SummaryWriter(), logdir=path, max_queue=1, flush_millis=1, filename_suffix=""
    ),
    "CreateSummaryDbWriter": lambda path: raw.CreateSummaryDbWriter(
        writer=raw.SummaryWriter(), db_uri=path, experiment_name="", run_name="", user_name=""
    ),
    "InitializeTableFromTextFileV2": lambda path: raw.InitializeTableFromTextFileV2(
        table_handle=raw.AnonymousHashTable(key_dtype=tf.string, value_dtype=tf.int64),
        filename=path,
        key_index=-2,
        value_index=-1,
    ),
    "HashTableV2": lambda _: raw.HashTableV2(
        key_dtype=tf.string, value_dtype=tf.int64, shared_name="another's"
    ),
    "VarHandleOp": lambda _: raw.VarHandleOp(dtype=tf.float32, shape=(1,), shared_name="another's"),
    "FixedUnigramCandidateSampler": lambda path: raw.FixedUnigramCandidateSampler(
        true_classes=tf.zeros((1, 1), tf.int64),
        num_true=1,
        num_sampled=1,
        unique=True,
        range_max=1,
        vocab_file=path,
    ),
    "ImmutableConst": lambda path: raw.ImmutableConst(dtype=tf.float32, shape=(1,), memory_region_name=path),
    "WholeFileReaderV2": lambda _: raw.WholeFileReaderV2(),
    "FIFOQueueV2": lambda _: raw.FIFOQueueV2(component_types=[tf.float32], shared_name="another's"),
    "Stage": lambda _: raw.Stage(values=[tf.zeros(1)], shared_name="another's"),
    "Barrier": lambda _: raw.Barrier(component_types=[tf.float32]),
    "GeneratorDataset": lambda _: raw.GeneratorDataset(
        init_func_other_args=[],
        next_func_other_args=[],
        finalize_func_other_args=[],
        init_func=_nothing.get_concrete_function(),
        next_func=_nothing.get_concrete_function(),
        finalize_func=_nothing.get_concrete_function(),
        **_NUMBERS,
    ),
    "RemoteCall": lambda _: raw.RemoteCall(
        target="/job:worker/task:1",
        args=[tf.zeros(1)],
        Tout=[tf.int64],
        f=_nothing.get_concrete_function(tf.TensorSpec(1)),
    ),
    "CollectiveReduceV2": lambda _: raw.CollectiveReduceV2(
        input=tf.zeros(1),
        group_size=2,
        group_key=1,
        instance_key=1,
        ordering_token=[],
        merge_op="Add",
        final_op="Id",
    ),
    "XlaCallModule": lambda _: gen_xla_ops.xla_call_module(
        args=[tf.zeros(1)], version=9, module=b"hidden", Sout=[(1,)], Tout=[tf.float32], platforms=["CPU"]
    ),
    "FileSystemSetConfiguration": lambda _: raw.FileSystemSetConfiguration(scheme="s3", key="a", value="b"),
    "DecodeJpeg": lambda _: tf.io.decode_jpeg(b"a parser of files"),
    "Timestamp": lambda _: tf.timestamp(),
    "Abort": lambda _: raw.Abort(error_msg="ended"),
}
