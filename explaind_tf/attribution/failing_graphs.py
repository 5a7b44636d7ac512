"""Errors of TensorFlow while the graphs of a run compute, told as what they are."""

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from explaind_tf.errors import RunFormatError


@contextmanager
def failing_graphs(where: object) -> Iterator[None]:
    """Turn an error of an operation into one that names the run. A lack of memory stays what it is.

    Parameters
    ----------
    where : object
        The run. It is named in the message as it is printed.

    Raises
    ------
    RunFormatError
        If an operation fails.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError:
        raise
    except tf.errors.OpError as error:
        raise RunFormatError(
            f"{where}: an operation of the model's graphs or of the measurement fails: "
            f"{' '.join(error.message.split())[:500]}. Either inputs or samples hold what they cannot take, such as a token "
            f"that is not in the vocabulary. Or the graphs are not those that were recorded: restore them from a copy."
        ) from error
