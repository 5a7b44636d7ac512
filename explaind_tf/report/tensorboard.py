"""A section of the report for TensorBoard: numbers by step, pictures and tables of samples."""

from pathlib import Path

import numpy as np

from explaind_tf import constants as names
from explaind_tf.event_file import EventFile
from explaind_tf.report import reductions
from explaind_tf.report.section import Section


def write_tensorboard(directory: str | Path, section: Section) -> None:
    """Write a section of the report to a log directory of TensorBoard.

    Scalars by training step are the change of the log-probability by layer (``by layer/…``) and by cause (``by cause/…``),
    in nats and positive where it was raised, ``training/loss`` and ``training/learning_rate``. At the last step, each
    input that is shown has a table of proponents and opponents and, if these are pictures, the pictures side by side.

    Parameters
    ----------
    directory : str or Path
        Log directory.
    section : Section
        As for ``write_report``.

    Raises
    ------
    RefusedError
        If TensorBoard is not installed.
    UnbalancedLedgerError
        If a ledger does not balance. Nothing is written then.
    """
    for ledger in (section.path, section.samples):
        if ledger is not None:
            ledger.explaind.check()
    file = EventFile(directory)
    by_layer = reductions.stacks_by_step(section.path, names.LAYER).parts
    by_cause = reductions.stacks_by_step(section.path, "term").terms
    curves = {f"by layer/{name}": values for name, values in by_layer.items()}
    curves |= {f"by cause/{name}": values for name, values in by_cause.items()}
    if section.curves is not None:
        curves |= {f"training/{name}": array.values for name, array in section.curves.items()}
    for i, step in enumerate(section.path[names.STEP].values.tolist()):
        file.scalars({name: float(values[i]) for name, values in curves.items()}, step)
    _write_samples(file, section, step)
    file.close()


def _write_samples(file: EventFile, section: Section, step: int) -> None:
    if section.samples is None:
        return
    found = section.samples.explaind.to_pandas(section.top)
    for i, example in enumerate(section.inputs):
        rows = found[found[names.INPUT] == section.samples[names.INPUT].values[i]]
        shown = {label: section.show_sample(label) for label in rows[names.SAMPLE]}
        columns = ["side", "training sample", "shows", "influence (nats)"]
        file.text(
            f"table/{example.text}",
            columns,
            [
                (side, label, shown[label].text, influence)
                for side, label, influence in zip(
                    rows["side"], rows[names.SAMPLE], rows["influence"].astype(float), strict=True
                )
            ],
            step,
        )
        pictures = [one.image for one in (example, *shown.values())]
        known = [np.asarray(picture) for picture in pictures if picture is not None]
        if len(known) == len(pictures) and len({len(picture) for picture in known}) == 1:
            words = "The input, then training samples: those that raised its prediction, then those that lowered it."
            file.images(f"pictures/{example.text}", known, step, words)
