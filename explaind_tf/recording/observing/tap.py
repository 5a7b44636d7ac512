"""The tap: it observes, inside the input pipeline, which samples each training step uses.

``tf.data`` prepares batches ahead of training, and Keras makes new iterators from epoch to epoch. The tap therefore
numbers iterators as they start (generations) and queues the batches of the newest one. The logger takes one entry from
the queue for each step that the optimizer counted.
"""

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from keras.src.trainers.data_adapters.tf_dataset_adapter import make_class_weight_map_fn

from explaind_tf.errors import RefusedError
from explaind_tf.runs.fingerprints import BatchFingerprints, Fingerprints
from explaind_tf.runs.format import structure as struct
from explaind_tf.runs.format.structure import Structure
from explaind_tf.runs.samples import Sample, SampleId


@dataclass(frozen=True)
class TappedBatch:
    """One batch as it went to training, flat.

    Fingerprints that take long are computed in another thread, beside the training step. Reading them waits for it.
    """

    inputs: list[np.ndarray]
    targets: list[np.ndarray]
    weights: list[np.ndarray]
    hashed: Future[Fingerprints]
    ids: list[SampleId] | None

    @property
    def fingerprints(self) -> Fingerprints:
        """The fingerprint of each sample."""
        return self.hashed.result()

    def __len__(self) -> int:
        return len(self.inputs[0])

    def sample(self, position: int) -> Sample:
        """Return one sample in the form in which it is stored."""
        return Sample(
            int(self.fingerprints.values[position]),
            None if self.ids is None else self.ids[position],
            [array[position] for array in self.inputs],
            [array[position] for array in self.targets],
        )


@dataclass(frozen=True)
class _ElementForm:
    """The structure of an element of the dataset."""

    inputs: Structure
    targets: Structure
    weights: Structure | None
    id_key: str | None
    leading_id: bool


class Tap:
    """Watches one dataset on its way to ``fit``.

    Parameters
    ----------
    dataset : tf.data.Dataset
        Batched dataset of ``(x, y)``, ``(x, y, sample_weight)`` or ``(id, (x, y[, sample_weight]))``.
    ids : str or None
        Key of the samples' ids in a dict of inputs.
    class_weight : dict or None
        Weights of classes, from which Keras makes sample weights.
    """

    def __init__(
        self, dataset: tf.data.Dataset, ids: str | None, class_weight: dict[int, float] | None = None
    ) -> None:
        if not isinstance(dataset, tf.data.Dataset):
            raise RefusedError(
                f"tap() was given a {type(dataset).__name__}. It needs a batched tf.data.Dataset: for arrays, "
                f"tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x)).batch(32)."
            )
        if class_weight is not None:
            dataset = _with_class_weights(dataset, _element_form(dataset.element_spec, ids), class_weight)
        self.form = _element_form(dataset.element_spec, ids)
        self.inputs, self.targets, self.weights = self.form.inputs, self.form.targets, self.form.weights
        self._lock = threading.Lock()
        self._generation = -1
        self._queue: deque[TappedBatch] = deque()
        self._is_open = False
        self._fingerprints = BatchFingerprints()
        self._hashing = ThreadPoolExecutor(1, thread_name_prefix="fingerprints")
        self.dataset = self._watch(dataset)

    def _watch(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        def start(_: tf.Tensor) -> tf.data.Dataset:
            generation = tf.numpy_function(self._start_generation, [], tf.int64)
            return tf.data.Dataset.from_tensors(generation).repeat()

        # A dataset of one element, which expands to a repeated number: `start` runs once per iterator, when the first
        # batch is drawn. The user's dataset is zipped with it and not nested in it. Its iterators are then made, and its
        # shuffles advance, exactly when they would without the tap.
        as_written = (
            tf.autograph.experimental.do_not_convert
        )  # conversion takes a second, and there is nothing to convert
        generations = tf.data.Dataset.range(1).flat_map(as_written(start))
        watched = tf.data.Dataset.zip((generations, dataset)).map(as_written(self._see))
        cardinality = dataset.cardinality()
        if cardinality == tf.data.UNKNOWN_CARDINALITY:
            return watched
        return watched.apply(tf.data.experimental.assert_cardinality(cardinality))

    def _see(self, generation: tf.Tensor, element: Any) -> Any:
        ids, training_element = _take_ids(self.form, element)
        structures = [self.inputs, self.targets, *([] if self.weights is None else [self.weights])]
        flat = [
            value
            for structure, part in zip(structures, training_element, strict=True)
            for _, _, value in struct.flatten(structure, part, "element")
        ]
        if ids is not None:
            flat.append(ids)
        seen = tf.numpy_function(self._enqueue, [generation, *flat], tf.int64, stateful=True)
        with tf.control_dependencies([seen]):
            return tf.nest.map_structure(tf.identity, training_element)

    def _start_generation(self) -> np.int64:
        with self._lock:
            if not self._is_open:
                return np.int64(-1)
            # In a step, training draws its batch first. Iterators that callbacks start afterwards are not training's.
            self._is_open = False
            self._generation += 1
            self._queue.clear()
            return np.int64(self._generation)

    def _enqueue(self, generation: np.int64, *flat: np.ndarray) -> np.int64:
        arrays = list(flat)
        ids = [_plain_id(value) for value in arrays.pop()] if self._has_ids else None
        # Copied, since the arrays are views of buffers that tf.data reuses after this function returns.
        arrays = [np.array(array) for array in arrays]
        x_stop = len(struct.leaves(self.inputs))
        y_stop = x_stop + len(struct.leaves(self.targets))
        contents, weights = arrays[:y_stop], arrays[y_stop:]
        with self._lock:
            if generation == self._generation:
                batch = TappedBatch(contents[:x_stop], contents[x_stop:], weights, self._hash(contents), ids)
                self._queue.append(batch)
        return np.int64(0)

    def _hash(self, contents: list[np.ndarray]) -> Future[Fingerprints]:
        if not self._fingerprints.remembers(contents):
            return self._hashing.submit(self._fingerprints, contents)
        # Looking up a table takes less time than waking a thread while training uses all cores.
        hashed: Future[Fingerprints] = Future()
        hashed.set_result(self._fingerprints(contents))
        return hashed

    @property
    def _has_ids(self) -> bool:
        return self.form.leading_id or self.form.id_key is not None

    def open(self) -> None:
        """Take the next iterator that starts for that of training, since a step begins."""
        with self._lock:
            self._is_open = True

    def close(self) -> None:
        """Ignore iterators that start from now on, since the step has ended."""
        with self._lock:
            self._is_open = False

    def next_batch(self) -> TappedBatch:
        """Return the batch of the step that just ended, and remove it from the queue.

        Raises
        ------
        RefusedError
            If training did not draw from this tap.
        """
        with self._lock:
            if not self._queue:
                raise RefusedError(
                    "A training step was taken, but no batch went through the tap. fit() needs the same dataset "
                    "object that tap() returned: model.fit(logger.tap(train_ds), callbacks=[logger])."
                )
            return self._queue.popleft()


def _plain_id(value: Any) -> SampleId:
    return value.decode() if isinstance(value, bytes) else int(value)


def _element_form(spec: Any, ids: str | None) -> _ElementForm:
    leading_id = _has_leading_id(spec)
    if leading_id and ids is not None:
        raise RefusedError(
            f"The dataset's elements (id, (x, y)) already carry ids, so ids={ids!r} cannot be used as well: leave out ids."
        )
    if leading_id:
        _refuse_odd_ids(spec[0])
        spec = spec[1]
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise RefusedError(
            f"The dataset's elements must be (x, y), (x, y, sample_weight) or (id, (x, y)), as fit() takes "
            f"them. Found: {spec}. Map them first, for example "
            f"ds.map(lambda d: (d['tfds_id'], (d['image'], d['label'])))."
        )
    x, y = spec[0], spec[1]
    if ids is not None:
        if not isinstance(x, dict) or ids not in x or len(x) < 2:
            found = sorted(x) if isinstance(x, dict) else type(x).__name__
            raise RefusedError(
                f"ids={ids!r} must be a key of the dict of inputs x, beside the inputs themselves. Found: {found}. "
                f"Otherwise map the elements to (id, (x, y))."
            )
        _refuse_odd_ids(x[ids])
        x = {key: value for key, value in x.items() if key != ids}
    _refuse_unbatched(x, y, spec[2:])
    return _ElementForm(
        inputs=struct.from_element_spec(x),
        targets=struct.from_element_spec(y),
        weights=struct.from_element_spec(spec[2]) if len(spec) == 3 else None,
        id_key=ids,
        leading_id=leading_id,
    )


def _has_leading_id(spec: Any) -> bool:
    return (
        isinstance(spec, tuple)
        and len(spec) == 2
        and isinstance(spec[0], tf.TensorSpec)
        and isinstance(spec[1], tuple)
        and len(spec[1]) in (2, 3)
        and spec[0].shape.rank == 1
    )


def _refuse_odd_ids(spec: Any) -> None:
    fits = isinstance(spec, tf.TensorSpec) and spec.shape.rank == 1
    if fits and spec.dtype == tf.uint64:
        raise RefusedError(
            "Sample ids of dtype uint64 may not fit into the int64 of a record: cast them to int64 or strings."
        )
    if not fits or not (spec.dtype.is_integer or spec.dtype == tf.string):
        raise RefusedError(
            f"Sample ids must be a batch of integers or strings, of shape (batch,). Found: {spec}. (If this is the "
            f"input x beside a tuple of targets, give the targets as a dict, or x the shape (batch, 1).)"
        )


def _refuse_unbatched(x: Any, y: Any, weights: tuple[Any, ...]) -> None:
    for spec in tf.nest.flatten((x, y, weights)):
        if not isinstance(spec, tf.TensorSpec):
            raise RefusedError(
                f"The dataset yields {spec}: only dense tensors can be recorded. Convert ragged and sparse tensors to dense "
                f"ones before the tap."
            )
        if spec.shape.rank is None or spec.shape.rank == 0:
            raise RefusedError(
                f"The dataset does not look batched: it yields {spec}, which has no batch dimension. Put "
                f".batch(n) before the tap: logger.tap(ds.shuffle(1000).batch(32))."
            )
        if spec.dtype == tf.string:
            raise RefusedError(
                f"The dataset yields {spec}: strings cannot be recorded. Vectorise text in the dataset, before the tap."
            )


def _with_class_weights(
    dataset: tf.data.Dataset, form: _ElementForm, class_weight: dict[int, float]
) -> tf.data.Dataset:
    """Return the dataset with the sample weights that ``fit(class_weight=class_weight)`` would make."""
    if form.weights is not None:
        raise RefusedError(
            "tap() was given class_weight and a dataset with sample weights; like Keras, it takes only one of them. "
            "Multiply them in the dataset: ds.map(lambda x, y, w: (x, y, w * tf.gather(class_weights, y)))."
        )
    if not isinstance(form.targets, struct.Leaf):
        raise RefusedError(
            f"class_weight is for one target of classes, as in Keras; the dataset's targets are a "
            f"{type(form.targets).__name__}. Give sample weights in the dataset instead, nested as the targets are."
        )
    if not class_weight or not all(isinstance(key, (int, np.integer)) for key in class_weight):
        raise RefusedError(
            f"class_weight must map class numbers to weights, as in {{0: 1.0, 1: 3.0}}. Found: {class_weight!r}."
        )
    weigh = make_class_weight_map_fn(class_weight)
    if form.leading_id:
        return dataset.map(lambda sample_id, element: (sample_id, weigh(*element)))
    return dataset.map(weigh)


def _take_ids(form: _ElementForm, element: Any) -> tuple[tf.Tensor | None, Any]:
    if form.leading_id:
        return element[0], element[1]
    if form.id_key is not None:
        x, *rest = element
        kept = {key: value for key, value in x.items() if key != form.id_key}
        return x[form.id_key], (kept, *rest)
    return None, element
