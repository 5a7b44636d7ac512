"""What a recording says when it ends before the training."""

import tensorflow as tf

from explaind_tf.runs.format.divergence import Divergence
from explaind_tf.runs.storage.files import AnyPath

NOT_RECORDED = "Training continues without being recorded."


def failure(error: OSError | tf.errors.OpError, run_dir: AnyPath, kept: int, pending: int) -> str:
    """Return the message for a step that could not be written.

    Parameters
    ----------
    error : OSError or tf.errors.OpError
        What happened.
    run_dir : Path or UPath
        The run directory.
    kept, pending : int
        Number of earlier steps that are kept, and of those that were not uploaded.
    """
    reason = error.strerror if isinstance(error, OSError) else error.message
    after = f", but the {pending} after them were not uploaded" if pending else ""
    return (
        f"The record in {run_dir} cannot be written: {reason or error}. Its {kept} steps before this one are "
        f"kept{after}. {_way_on(run_dir)}"
    )


def after_failure(run_dir: AnyPath) -> str:
    """Return the message for a further fit after such a step."""
    return f"This PathLogger could not write to {run_dir} in an earlier fit and records no more. {_way_on(run_dir)}"


def _way_on(run_dir: AnyPath) -> str:
    return (
        f"Remove the cause (free disk space), then continue with PathLogger({str(run_dir)!r}, resume=True)."
    )


def after_divergence(found: Divergence, run_dir: AnyPath) -> str:
    """Return the message for a training that diverged."""
    return (
        f"The {found}. From there on, predictions cannot be accounted for: the run in {run_dir} ends with the {found.step} "
        f"steps before, and is complete. To go on from there, with other data or a lower learning rate, use "
        f"PathLogger({str(run_dir)!r}, resume=True)."
    )
