"""The beginning of a run: what is written before its first step."""

from typing import Any

from explaind_tf.recording.exporting.pure_functions import PureFunctions
from explaind_tf.recording.exporting.training_step import ExportedStep
from explaind_tf.recording.writing.writer import RunWriter
from explaind_tf.runs.format.description import RunDescription
from explaind_tf.runs.format.step_records import Snapshot


def begin_run(
    writer: RunWriter,
    functions: PureFunctions,
    training_step: ExportedStep,
    description: RunDescription,
    *,
    every: int,
    environment: dict[str, Any],
    start: Snapshot,
) -> RunWriter:
    """Write the model's functions, the run's description and the state before training, and return the writer."""
    try:
        functions.save(str(writer.graphs_dir))
        training_step.save(writer.graphs_dir, every)
        writer.begin(description, every=every, environment=environment | training_step.reasons, start=start)
    except BaseException:
        writer.close()  # releases the directory's lock
        raise
    return writer
