"""Variables and batches under ``tf.distribute.MirroredStrategy``, which trains with one replica on each device.

Keras creates a model's variables as mirrored ones: each replica has a copy. Without a strategy, there is one replica.
"""

from typing import Any

import numpy as np
import tensorflow as tf


def first_copy(variable: Any) -> Any:
    """Return the copy of a mirrored variable that the first replica has, or the variable itself if it is not mirrored.

    Parameters
    ----------
    variable : tf.Variable
        The variable.

    Returns
    -------
    tf.Variable
        A variable with a handle of its own.
    """
    return variable.values[0] if isinstance(variable, tf.distribute.DistributedValues) else variable


def own_copy(variable: Any) -> Any:
    """Return the copy of a mirrored variable that the running replica has, or the variable itself if it is not mirrored.

    Parameters
    ----------
    variable : tf.Variable
        The variable.

    Returns
    -------
    tf.Variable
        A variable that can be written to on the device of the replica.
    """
    is_mirrored = isinstance(variable, tf.distribute.DistributedValues)
    return variable.values[replica_number()] if is_mirrored else variable


def replica_number() -> int:
    """Return the number of the replica whose code is running, or being traced; 0 outside of replicas.

    Returns
    -------
    int
        From 0.
    """
    context = tf.distribute.get_replica_context() if tf.distribute.has_strategy() else None
    return 0 if context is None else int(tf.get_static_value(context.replica_id_in_sync_group))


def replica_count(model: Any) -> int:
    """Return how many replicas train a model.

    Parameters
    ----------
    model : keras.Model
        The model.

    Returns
    -------
    int
        1 without a strategy.
    """
    return int(model.distribute_strategy.num_replicas_in_sync)


def is_mirrored(model: Any) -> bool:
    """Return whether a model was made under a strategy that trains copies of its variables, be it one.

    Parameters
    ----------
    model : keras.Model
        The model.

    Returns
    -------
    bool
        False for a model without variables yet.
    """
    values = (variable.value for variable in model.variables)
    return replica_count(model) > 1 or any(isinstance(v, tf.distribute.DistributedValues) for v in values)


def rounded_average(count: int) -> float:
    """Return by how much Keras' average over replicas is larger than the average.

    Keras multiplies with 1/count, rounded to float32 whatever the precision of the loss
    (``keras/src/losses/loss.py::scale_loss_for_distribution``).

    Parameters
    ----------
    count : int
        Number of replicas.

    Returns
    -------
    float
        1 for powers of two.
    """
    return count * float(np.float32(1.0 / count))
