"""A batch of training, and the form of its data."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from explaind_tf.errors import RefusedError
from explaind_tf.runs.fingerprints import Fingerprints
from explaind_tf.runs.format import structure as struct
from explaind_tf.runs.format.structure import Structure
from explaind_tf.runs.samples import Sample, SampleId


@dataclass(frozen=True)
class StepBatch:
    """The batch of one training step, flat.

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


def known(batches: Sequence[StepBatch | None]) -> list[StepBatch]:
    """Return the batches of a step that are recorded: one for each replica, or none."""
    return [batch for batch in batches if batch is not None]


@dataclass(frozen=True)
class BatchForm:
    """The structure of the data that a training step receives.

    Attributes
    ----------
    inputs, targets : Structure
        Structure of one sample. Targets are ``()`` if the data have none.
    weights : Structure or None
        Structure of the sample weights of one sample; None if the data have none.
    is_tuple : bool
        Whether the data are a tuple of up to three parts, and not the inputs alone.
    specs : tuple of tf.TensorSpec
        The tensors of a batch in flattening order: inputs, targets, weights.
    """

    inputs: Structure
    targets: Structure
    weights: Structure | None
    is_tuple: bool
    specs: tuple[tf.TensorSpec, ...] = field(compare=False)

    @classmethod
    def of(cls, data: Any) -> "BatchForm":
        """Return the form of the data of a step.

        Parameters
        ----------
        data
            What ``train_step`` receives: tensors or their specs, nested.

        Raises
        ------
        RefusedError
            If the data cannot be recorded.
        """
        parts = keras.utils.unpack_x_y_sample_weight(data)
        for leaf in tf.nest.flatten([part for part in parts if part is not None], expand_composites=False):
            _refuse_odd(leaf)
        inputs, targets, weights = (
            None if part is None else struct.from_element_spec(part) for part in parts
        )
        if inputs is None or not struct.leaves(inputs):
            raise RefusedError(
                "The training step gets no inputs x, so there is no sample to account for. Give fit() data of the form x, "
                "(x, y) or (x, y, sample_weight), and logger.step() the batch."
            )
        targets = () if targets is None else targets
        form = cls(inputs, targets, weights, isinstance(data, (tuple, list)), ())
        specs = tuple(tf.TensorSpec(leaf.shape, leaf.dtype) for leaf in form.flatten(data))
        return cls(inputs, targets, weights, form.is_tuple, specs)

    def with_free_sizes(self, declared: Structure) -> "BatchForm":
        """Return the form with the sizes left open that a model declares as open, such as the length of a sequence.

        The tensors of an eager step have all sizes. If an input has an open one, those of targets and weights are open, too.
        """
        pairs = list(zip(struct.leaves(self.inputs), struct.leaves(declared), strict=False))
        if len(pairs) != len(struct.leaves(self.inputs)) or all(None not in leaf.shape for _, leaf in pairs):
            return self
        opened = [
            struct.Leaf(own.dtype, known.shape) if len(own.shape) == len(known.shape) else own
            for own, known in pairs
        ]
        return replace(
            self,
            inputs=struct.pack(self.inputs, opened),
            targets=struct.map_leaves(self.targets, _with_open_sizes),
            weights=None if self.weights is None else struct.map_leaves(self.weights, _with_open_sizes),
        )

    def accepts(self, other: "BatchForm") -> bool:
        """Return whether batches of another form have this one, too. They may have sizes where this one leaves them open."""
        return self.is_tuple == other.is_tuple and all(
            (ours is None) == (theirs is None) and (ours is None or theirs is None or _accepts(ours, theirs))
            for ours, theirs in zip(self._structures, other._structures, strict=True)
        )

    def flatten(self, data: Any) -> list[Any]:
        """Return the tensors of a batch in flattening order."""
        parts = zip(self._structures, keras.utils.unpack_x_y_sample_weight(data), strict=True)
        return [
            value
            for structure, part in parts
            if structure is not None and part is not None
            for _, _, value in struct.flatten(structure, part, "the data")
        ]

    def pack(self, flat: Sequence[Any]) -> Any:
        """Return flat tensors as the data of a training step. This is the inverse of :meth:`flatten`."""
        x, y, w = (list(part) for part in self.split(flat))
        inputs = struct.pack(self.inputs, x)
        if not self.is_tuple:
            return inputs
        data = [inputs]
        if self.has_targets or self.weights is not None:
            data.append(struct.pack(self.targets, y) if self.has_targets else None)
        if self.weights is not None:
            data.append(struct.pack(self.weights, w))
        return tuple(data)

    def split(self, flat: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
        """Return flat tensors as those of inputs, targets and weights."""
        x_stop = len(struct.leaves(self.inputs))
        y_stop = x_stop + len(struct.leaves(self.targets))
        return flat[:x_stop], flat[x_stop:y_stop], flat[y_stop:]

    @property
    def has_targets(self) -> bool:
        """Whether the data have targets."""
        return bool(struct.leaves(self.targets))

    @property
    def _structures(self) -> tuple[Structure, Structure, Structure | None]:
        return self.inputs, self.targets, self.weights


# What looks at the data of a step, see WatchedStep.
Meet = Callable[[Any], BatchForm | None]


def _with_open_sizes(leaf: struct.Leaf) -> struct.Leaf:
    return struct.Leaf(leaf.dtype, (None,) * len(leaf.shape))


def _accepts(ours: Structure, theirs: Structure) -> bool:
    wide, narrow = struct.leaves(ours), struct.leaves(theirs)
    is_nested_alike = struct.map_leaves(ours, type) == struct.map_leaves(theirs, type)
    return is_nested_alike and all(
        a.dtype == b.dtype
        and len(a.shape) == len(b.shape)
        and all(size in (None, found) for size, found in zip(a.shape, b.shape, strict=True))
        for a, b in zip(wide, narrow, strict=True)
    )


def _refuse_odd(spec: Any) -> None:
    if not isinstance(spec, (tf.TensorSpec, tf.Tensor)):
        raise RefusedError(
            f"The data of a training step hold {spec}: only dense tensors can be recorded. Convert ragged and sparse "
            f"tensors to dense ones before fit()."
        )
    if spec.shape.rank is None or spec.shape.rank == 0:
        raise RefusedError(
            f"The data of a training step do not look batched: they hold {spec}, which has no batch dimension. Put "
            f".batch(n) behind the dataset: fit(ds.shuffle(1000).batch(32))."
        )
    if spec.dtype == tf.string:
        raise RefusedError(
            f"The data of a training step hold {spec}: strings cannot be recorded. Vectorise text before fit()."
        )


def without_ids(data: Any, key: str) -> tuple[Any, Any]:
    """Return the ids of a batch, and its data without them.

    Parameters
    ----------
    data
        Inputs x, or a tuple that begins with them: tensors or their specs.
    key : str
        Key of the ids in the dict x.

    Raises
    ------
    RefusedError
        If there are no such ids.
    """
    x = data[0] if isinstance(data, tuple) else data
    if not isinstance(x, dict) or key not in x or len(x) < 2:
        found = sorted(map(str, x)) if isinstance(x, dict) else type(x).__name__
        raise RefusedError(
            f"ids={key!r} must be a key of the dict of inputs x, beside the inputs themselves. Found: {found}. "
            f"Otherwise give logger.tap() a dataset of elements (id, (x, y))."
        )
    refuse_odd_ids(x[key])
    kept = {name: value for name, value in x.items() if name != key}
    return x[key], (kept, *data[1:]) if isinstance(data, tuple) else kept


def refuse_odd_ids(spec: Any) -> None:
    """Refuse ids that are not a batch of integers or strings.

    Raises
    ------
    RefusedError
        If they are not.
    """
    fits = isinstance(spec, (tf.TensorSpec, tf.Tensor)) and spec.shape.rank == 1
    if fits and spec.dtype == tf.uint64:
        raise RefusedError(
            "Sample ids of dtype uint64 may not fit into the int64 of a record: cast them to int64 or strings."
        )
    if not fits or not (spec.dtype.is_integer or spec.dtype == tf.string):
        raise RefusedError(
            f"Sample ids must be a batch of integers or strings, of shape (batch,). Found: {spec}. (If this is the "
            f"input x beside a tuple of targets, give the targets as a dict, or x the shape (batch, 1).)"
        )


def plain_id(value: Any) -> SampleId:
    """Return an id from an array as a Python int or str."""
    return value.decode() if isinstance(value, bytes) else int(value)
