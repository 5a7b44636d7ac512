"""The tap: it adds to a dataset what ``fit`` does not take, ids of samples, and sees which sample has which id.

A sample is known by its content. The tap notes the ids of the contents that pass, and the logger looks up those of the
batches that training received. What lies between, such as ``repeat`` or ``prefetch``, does not matter.
"""

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from keras.src.trainers.data_adapters.tf_dataset_adapter import make_class_weight_map_fn

from explaind_tf.errors import RefusedError
from explaind_tf.recording.observing.batches import BatchForm, refuse_odd_ids, without_ids
from explaind_tf.recording.observing.ids_by_content import IdsByContent
from explaind_tf.runs.fingerprints import BatchFingerprints
from explaind_tf.runs.format import structure as struct
from explaind_tf.runs.samples import SampleId


@dataclass(frozen=True)
class _ElementForm:
    """Where the ids are in an element of the dataset, and the form of the element without them."""

    batch: BatchForm
    id_key: str | None
    leading_id: bool

    @property
    def has_ids(self) -> bool:
        return self.leading_id or self.id_key is not None


class Tap:
    """Adds class weights to one dataset, and takes ids out of it.

    Parameters
    ----------
    dataset : tf.data.Dataset
        Batched dataset of ``(x, y)``, ``(x, y, sample_weight)`` or ``(id, (x, y[, sample_weight]))``.
    ids : str or None
        Key of the samples' ids in a dict of inputs.
    class_weight : dict or None
        Weights of classes, from which Keras makes sample weights.

    Attributes
    ----------
    dataset : tf.data.Dataset
        The dataset for ``fit``.
    form : BatchForm
        The form of its elements.
    """

    def __init__(
        self, dataset: tf.data.Dataset, ids: str | None, class_weight: dict[int, float] | None = None
    ) -> None:
        if not isinstance(dataset, tf.data.Dataset):
            raise RefusedError(
                f"tap() was given a {type(dataset).__name__}. It needs a batched tf.data.Dataset. Give arrays to fit() as "
                f"they are: model.fit(x, y, callbacks=[logger])."
            )
        self._form = _element_form(dataset.element_spec, ids)
        self.form = self._form.batch
        if class_weight is not None:
            dataset = _with_class_weights(dataset, self._form, class_weight)
        self._lock = threading.Lock()
        self._fingerprints = BatchFingerprints()
        self._ids = IdsByContent()
        self.dataset = dataset.map(self._see) if self._form.has_ids else dataset

    @tf.autograph.experimental.do_not_convert  # conversion takes a second, and there is nothing to convert
    def _see(self, *element: Any) -> Any:
        ids, training_element = _take_ids(self._form, element)
        # Weights do not identify a sample.
        x_and_y = self._form.batch.flatten(training_element[:2])
        seen = tf.numpy_function(self._note, [ids, *x_and_y], tf.int64, stateful=True)
        with tf.control_dependencies([seen]):
            return tf.nest.map_structure(tf.identity, training_element)

    def _note(self, ids: np.ndarray, *contents: np.ndarray) -> np.int64:
        with self._lock:
            self._ids.note(self._fingerprints(contents).values, ids)
        return np.int64(0)

    def ids_of(self, contents: np.ndarray) -> list[SampleId] | None:
        """Return the ids of the samples of a batch, in order; None if the dataset has none.

        Parameters
        ----------
        contents : np.ndarray
            Fingerprints of the samples, int64 of shape (batch,).

        Raises
        ------
        RefusedError
            If a content did not pass.
        """
        if not self._form.has_ids:
            return None
        with self._lock:
            found = self._ids.take(contents)
        if found is None:
            raise RefusedError(
                "A training step used a sample that did not pass the tap, so its id is not known. fit() needs the dataset "
                "that tap() returned, and what changes samples (augmentation, casts, padding) must come before the tap. "
                "Without ids no tap is needed: model.fit(ds, callbacks=[logger])."
            )
        return found


def _element_form(spec: Any, ids: str | None) -> _ElementForm:
    leading_id = _has_leading_id(spec)
    if leading_id and ids is not None:
        raise RefusedError(
            f"The dataset's elements (id, (x, y)) already carry ids, so ids={ids!r} cannot be used as well: leave out ids."
        )
    if leading_id:
        refuse_odd_ids(spec[0])
        spec = spec[1]
    if ids is not None:
        _, spec = without_ids(spec, ids)
    return _ElementForm(BatchForm.of(spec), ids, leading_id)


def _has_leading_id(spec: Any) -> bool:
    return (
        isinstance(spec, tuple)
        and len(spec) == 2
        and isinstance(spec[0], tf.TensorSpec)
        and isinstance(spec[1], tuple)
        and len(spec[1]) in (2, 3)
        and spec[0].shape.rank == 1
    )


def _with_class_weights(
    dataset: tf.data.Dataset, form: _ElementForm, class_weight: dict[int, float]
) -> tf.data.Dataset:
    """Return the dataset with the sample weights that ``fit(class_weight=class_weight)`` would make."""
    if form.batch.weights is not None:
        raise RefusedError(
            "tap() was given class_weight and a dataset with sample weights; like Keras, it takes only one of them. "
            "Multiply them in the dataset: ds.map(lambda x, y, w: (x, y, w * tf.gather(class_weights, y)))."
        )
    if not isinstance(form.batch.targets, struct.Leaf):
        raise RefusedError(
            f"class_weight is for one target of classes, as in Keras; the dataset's targets are a "
            f"{type(form.batch.targets).__name__}. Give sample weights in the dataset instead, nested as the targets are."
        )
    if not class_weight or not all(isinstance(key, (int, np.integer)) for key in class_weight):
        raise RefusedError(
            f"class_weight must map class numbers to weights, as in {{0: 1.0, 1: 3.0}}. Found: {class_weight!r}."
        )
    weigh = make_class_weight_map_fn(class_weight)
    if form.leading_id:
        return dataset.map(lambda sample_id, element: (sample_id, weigh(*element)))
    return dataset.map(weigh)


def _take_ids(form: _ElementForm, element: tuple[Any, ...]) -> tuple[tf.Tensor, Any]:
    if form.leading_id:
        return element[0], element[1]
    assert form.id_key is not None  # there are ids
    return without_ids(element, form.id_key)
