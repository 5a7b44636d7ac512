"""Objects that are there already, and the garbage collector while graphs are traced."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def old_objects_aside() -> Iterator[None]:
    """Spare the garbage collector the objects that are there, for the time of a block.

    TensorFlow and Keras are some hundred thousand objects, which live as long as the process. While a graph is traced, the
    collector goes through all of them, for nothing: half a second, which a small question does not take otherwise. What
    becomes garbage within the block is still collected. What became garbage before is collected after it.
    """
    if gc.get_freeze_count() or not gc.isenabled():  # somebody else decides
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.freeze()  # sets the collector's counts to 0: it need not run as soon as the block ends
        gc.unfreeze()
