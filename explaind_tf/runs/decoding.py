"""Records of steps, read from the files of a run."""

from collections.abc import Sequence
from dataclasses import replace

from explaind_tf.errors import RunFormatError
from explaind_tf.runs.format.possible_numbers import check_numbers
from explaind_tf.runs.format.step_records import STEP, Layout, StepRecord
from explaind_tf.runs.storage.records import RecordFile


def forget_without_samples(files: Sequence[RecordFile], layout: Layout, sample_count: int) -> int:
    """Make files that were still being written end before the first step whose samples are missing.

    Samples are written before the steps that use them. After a power cut, steps may be on the disk without them.

    Returns
    -------
    int
        Number of steps that were left out.
    """
    steps = 0
    layout = based_on_start(layout, files)
    for file in files:
        while file.is_open and len(file):
            record = decoded(layout, file, len(file) - 1)
            if record.sample_count <= sample_count:
                break
            steps += record.kind == STEP
            file.forget_from(len(file) - 1)
    return steps


def based_on_start(layout: Layout, files: Sequence[RecordFile]) -> Layout:
    """Return a layout with the state at the start of the run, to which records refer that hold a part of theirs only."""
    if not len(files[0]):
        return layout
    start = decoded(layout, files[0], 0).snapshot
    return layout if start is None else replace(layout, start=tuple(start.state))


def decoded(layout: Layout, file: RecordFile, index: int) -> StepRecord:
    """Return a record of a file.

    Raises
    ------
    RunFormatError
        If it is damaged. The message names it.
    """
    example = file.read_example(index)
    try:
        record = layout.decode(example)
        check_numbers(record, layout)
        return record
    except RunFormatError as error:
        raise RunFormatError(
            f"{file.path}: record {index} is damaged: {error}. Restore the file from a copy."
        ) from error
