"""The training step, watched: which batch each step receives.

Between a dataset and ``train_step`` there may be anything: shuffling, prefetching, repetition, class weights, arrays that
Keras cuts into batches. What the step itself receives is the batch that trained, so it is noted there.
"""

import threading
import weakref
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from explaind_tf.errors import RefusedError
from explaind_tf.recording.observing.batches import BatchForm, Meet, StepBatch, plain_id, without_ids
from explaind_tf.recording.observing.earlier_steps import EarlierSteps
from explaind_tf.replicas import replica_count, replica_number
from explaind_tf.runs.fingerprints import BatchFingerprints, Fingerprints


class WatchedStep:
    """Keras' train function of a model, with a look at the data before each step. The step itself stays as it is.

    Parameters
    ----------
    model : keras.Model
        Built and compiled.
    meet : method
        Called with the data when a step is traced, before it is taken. It returns their form, or None if batches are not
        to be noted. It may refuse.
    ids : str or None
        Key of the samples' ids in a dict of inputs. The step gets the inputs without them.
    """

    def __init__(self, model: keras.Model, meet: Meet, ids: str | None = None) -> None:
        self._model, self._ids = model, ids
        # The logger's method. A circle of references would keep its files until the garbage collector runs.
        self._meet = weakref.WeakMethod(meet)
        self._lock = threading.Lock()
        self._replicas = replica_count(model)
        self._queue: deque[tuple[int, StepBatch | None]] = deque()  # with the number of the replica
        self._is_open = False
        self._fingerprints = BatchFingerprints()
        self._hashing = ThreadPoolExecutor(1, thread_name_prefix="fingerprints")
        self._unwatched: Any = None
        self._function: Any = None

    def _made(self) -> Any:
        """Return Keras' train function, made of the watched step."""
        model = self._model
        step, own, before, is_compiled = (
            model.train_step,
            vars(model).get("train_step"),
            model.train_function,
            model.jit_compile,
        )
        if is_compiled and not model.run_eagerly:
            # XLA cannot call Python. It compiles the step as Keras would let it, and the look at the data comes before.
            step = tf.function(
                tf.autograph.experimental.do_not_convert(step), reduce_retracing=True, jit_compile=True
            )

        earlier = EarlierSteps(before)

        def watched(data: Any) -> Any:
            results = step(self.see(data))
            if not tf.executing_eagerly():
                earlier.refuse_other(data, tf.compat.v1.get_default_graph())
            return results

        model.train_step, model.jit_compile, model.train_function = watched, False, None
        try:
            model.make_train_function()
            return model.train_function
        finally:
            del model.train_step
            if own is not None:
                model.train_step = own
            model.jit_compile, model.train_function = is_compiled, before

    def see(self, data: Any) -> Any:
        """Note the data of a step, and return them without ids."""
        ids, data = (None, data) if self._ids is None else without_ids(data, self._ids)
        meet = self._meet()
        with tf.init_scope():
            form = None if meet is None else meet(data)
        tensors = [] if form is None else [*form.flatten(data), *([] if ids is None else [ids])]
        replica = replica_number()
        if tf.executing_eagerly():
            self._enqueue(replica, form, [tensor.numpy() for tensor in tensors], ids is not None)
        else:
            # It has no result. TensorFlow runs it nevertheless, since it is stateful, and in the order of the steps.
            tf.numpy_function(
                lambda *flat: self._enqueue(replica, form, list(flat), ids is not None),
                tensors,
                [],
                stateful=True,
            )
        return data

    def _enqueue(
        self, replica: int, form: BatchForm | None, arrays: list[np.ndarray], with_ids: bool
    ) -> None:
        with self._lock:  # replicas run at once
            if len(self._queue) >= self._model.steps_per_execution * self._replicas:
                # More than an execution has: a fit that was interrupted left this step to the fits after it.
                self._is_open = False
            if self._is_open:
                batch = None if form is None else self._batch(form, arrays, with_ids)
                self._queue.append((replica, batch))

    def _batch(self, form: BatchForm, arrays: list[np.ndarray], with_ids: bool) -> StepBatch:
        ids = [plain_id(value) for value in arrays.pop()] if with_ids else None
        # Copied, since the arrays are views of buffers that TensorFlow reuses.
        inputs, targets, weights = form.split([np.array(array) for array in arrays])
        return StepBatch(list(inputs), list(targets), list(weights), self._hash([*inputs, *targets]), ids)

    def _hash(self, contents: list[np.ndarray]) -> "Future[Fingerprints]":
        if not self._fingerprints.remembers(contents):
            return self._hashing.submit(self._fingerprints, contents)
        # Looking up a table takes less time than waking a thread while training uses all cores.
        hashed: Future[Fingerprints] = Future()
        hashed.set_result(self._fingerprints(contents))
        return hashed

    def attach(self) -> None:
        """Have the model train with the watched step."""
        if self._function is None:
            self._function = self._made()
        self._unwatched = self._model.train_function
        self._model.train_function = self._function

    def detach(self) -> None:
        """Give the model its own train function back, unless something else has replaced the watched one."""
        if self._function is not None and self._model.train_function is self._function:
            self._model.train_function = self._unwatched

    def open(self) -> None:
        """Note the batches of steps from now on, since an execution begins."""
        with self._lock:
            self._queue.clear()
            self._is_open = True

    def close(self) -> list[list[StepBatch | None]]:
        """Note no more batches, since the execution has ended.

        Returns
        -------
        list of list of StepBatch or None
            For each step the batches of its replicas, that of the first one last; None without a form. The record has the
            first replica's state, so its batch is the one that leads there.
        """
        with self._lock:
            self._is_open = False
            noted = sorted(self._queue, key=lambda entry: entry[0])
        by_replica = [[batch for number, batch in noted if number == r] for r in range(self._replicas)]
        counts = [len(batches) for batches in by_replica]
        if len(set(counts)) > 1:
            raise RefusedError(
                f"In one execution, train_step received {counts} batches in the {self._replicas} replicas. While fit() is "
                f"being recorded, each replica must take each step once."
            )
        return [list(step) for step in zip(*by_replica[1:], by_replica[0], strict=True)]
