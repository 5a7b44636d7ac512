"""The base of all path optimizers, which note what only an optimizer sees in a step."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from explaind_tf.laws import Law
from explaind_tf.optimizers.ring_buffer import RingBuffer, StepScalars
from explaind_tf.optimizers.untracked import ByReplica, Untracked
from explaind_tf.replicas import replica_number


class PathOptimizer(keras.optimizers.Optimizer):
    """Base of optimizers whose steps can be accounted for; list it before the Keras optimizer.

    What it adds to a step only reads. It never changes a weight.

    Attributes
    ----------
    clips_slices : bool
        Whether ``clipvalue`` was applied to a sparse gradient. Keras clips its slices one by one.
    """

    _used: RingBuffer | None = None
    _stepped: RingBuffer | None = None
    _left: RingBuffer | None = None
    _watched: Untracked = Untracked([])
    _updated: frozenset[int] = frozenset()
    clips_slices: bool = False

    def build(self, var_list: list[Any]) -> None:
        """Create the optimizer's variables and the ring buffer beside them."""
        if self.built:
            return
        super().build(var_list)
        # By replica: one may clip before another one has updated.
        self._clip_factors = ByReplica()
        # float64 holds every learning rate and factor that Keras may use exactly.
        factors = tf.TensorSpec((len(self._trainable_variables),), tf.float64)
        self._used = RingBuffer([tf.TensorSpec((), tf.float64), *([factors] if self._clips_by_norm else [])])

    def law(self) -> Law:
        """Return the displacement law with this optimizer's constants.

        Returns
        -------
        Law
            Pure functions of weights, moments, gradient and learning rate.
        """
        raise NotImplementedError

    def moments(self, variables: list[Any] | None = None) -> tuple[list[Any], list[Any]]:
        """Return the variables of momentum and of the second moment.

        Parameters
        ----------
        variables : list of keras.Variable, optional
            Trainable variables that the optimizer was built with. Default: all.

        Returns
        -------
        tuple of list of keras.Variable
            In the order of the variables; empty if the optimizer has none.
        """
        raise NotImplementedError

    def _of(self, kept: list[Any], variables: list[Any] | None) -> list[Any]:
        """Return those of the optimizer's variables, one for each that it was built with, that belong to some (or all)."""
        variables = self._trainable_variables if variables is None else variables
        return [kept[self._get_variable_index(variable)] for variable in variables]

    def further(self, variables: list[Any]) -> dict[str, list[Any]]:
        """Return the variables that the law reads besides the moments, by the names in its ``scalars`` and ``vectors``.

        Parameters
        ----------
        variables : list of keras.Variable
            Trainable variables that the optimizer was built with.

        Returns
        -------
        dict of str to list of keras.Variable
            For each scalar one variable. For each vector one for each of ``variables``, of its shape or with one element.
        """
        return {}

    def read_by_law(self, variables: list[Any]) -> list[Any]:
        """Return the variables of :meth:`further` in the order in which the law reads them.

        Parameters
        ----------
        variables : list of keras.Variable
            Trainable variables that the optimizer was built with.

        Returns
        -------
        list of keras.Variable
            The scalars, then the vectors.
        """
        law, found = self.law(), self.further(variables)
        return [variable for name in (*law.scalars, *law.vectors) for variable in found[name]]

    @property
    def _clips_by_norm(self) -> bool:
        return bool(self.clipnorm or self.global_clipnorm)

    def _clip_gradients(self, grads: list[Any]) -> list[Any]:
        if self.clipnorm:
            self._clip_factors.tensors[replica_number()] = tf.stack(
                [_clip_factor(_norm([g]), self.clipnorm) for g in grads]
            )
        elif self.global_clipnorm:
            factor = _clip_factor(_norm(grads), self.global_clipnorm)
            self._clip_factors.tensors[replica_number()] = tf.fill([len(grads)], factor)
        elif self.clipvalue:
            self.clips_slices = any(isinstance(g, tf.IndexedSlices) for g in grads)
        return super()._clip_gradients(grads)

    def _backend_update_step(self, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        # Only here Keras passes the learning rate that it is about to use. Reading `self.learning_rate`
        # again would call a user's callable more often than Keras does.
        assert self._used is not None  # set by build(), which Keras calls before any step
        indices = [self._get_variable_index(variable) for variable in trainable_variables]
        self._updated = frozenset(indices)
        values = [learning_rate]
        clip_factors = self._clip_factors.tensors.pop(replica_number(), None)
        if clip_factors is not None:
            ones = tf.ones([len(self._trainable_variables)], tf.float64)
            positions = [[i] for i in indices]
            values.append(tf.tensor_scatter_nd_update(ones, positions, clip_factors))
        iteration = tf.convert_to_tensor(self._iterations)
        self._used.write(iteration, values)
        super()._backend_update_step(grads, trainable_variables, learning_rate)
        if self._stepped is not None:
            self._stepped.write(iteration, self._trainable_variables)

    def apply(self, grads: list[Any], trainable_variables: list[Any] | None = None) -> None:
        """Update the weights as the Keras optimizer does, and note the watched variables after the step."""
        iteration = tf.convert_to_tensor(self._iterations)
        super().apply(grads, trainable_variables)
        if self._left is not None:
            self._left.write(iteration, self._watched.variables)

    def watch(self, variables: Sequence[Any], slots: int) -> None:
        """Note in each step the weights after the update, and ``variables`` at the end of the step.

        Some steps cannot be read from outside: several run in one execution, or something besides the update changes
        the weights within a step (constraints, moving averages). Takes effect when the training step is traced.

        Parameters
        ----------
        variables : sequence of keras.Variable
            Variables of the model and of this optimizer.
        slots : int
            How many steps to keep.
        """
        self._watched = Untracked(list(variables))
        self._stepped = RingBuffer([_spec(v) for v in self._trainable_variables], slots)
        self._left = RingBuffer([_spec(v) for v in variables], slots)

    def unwatch(self) -> None:
        """Undo :meth:`watch`."""
        self._watched, self._stepped, self._left = Untracked([]), None, None

    @property
    def is_watching(self) -> bool:
        """Whether :meth:`watch` is in force."""
        return self._left is not None

    def recorded_step(self, iteration: int) -> StepScalars | None:
        """Return what a step used.

        Parameters
        ----------
        iteration : int
            The optimizer's raw counter (micro-batches, with gradient accumulation) before the step.

        Returns
        -------
        StepScalars or None
            Learning rate and clipping factors; None for a step that only accumulated gradients.

        Raises
        ------
        LookupError
            If that step was not taken, or lies too far back.
        """
        if self._used is None:
            raise LookupError(
                "The optimizer is not built: it has taken no step yet. Train a step before you read what it used."
            )
        if not self.is_update(iteration):
            return None
        rate, *factors = self._used.read(iteration)
        return StepScalars(float(rate), factors[0] if factors else None)

    def watched_step(self, iteration: int) -> tuple[list[np.ndarray] | None, list[np.ndarray]]:
        """Return the weights after an update, and the watched variables at the end of the step.

        Parameters
        ----------
        iteration : int
            The optimizer's raw counter (micro-batches, with gradient accumulation) before the step.

        Returns
        -------
        tuple
            Lists of arrays. The first is None for a step that only accumulated gradients.

        Raises
        ------
        LookupError
            If nothing was noted for that step.
        """
        if self._left is None or self._stepped is None:
            raise LookupError(
                "The optimizer does not watch its steps. Call watch(variables, slots) before the training step is traced."
            )
        stepped = self._stepped.read(iteration) if self.is_update(iteration) else None
        return stepped, self._left.read(iteration)

    def is_update(self, iteration: int) -> bool:
        """Return whether a step updates weights, or only accumulates gradients.

        Parameters
        ----------
        iteration : int
            The optimizer's raw counter (micro-batches, with gradient accumulation) before the step.

        Returns
        -------
        bool
            True if it updates weights.
        """
        every = self.gradient_accumulation_steps or 1
        return (iteration + 1) % every == 0

    def updates_before(self, iteration: int) -> int:
        """Return the number of updates before a step.

        Parameters
        ----------
        iteration : int
            The optimizer's raw counter (micro-batches, with gradient accumulation) before the step.

        Returns
        -------
        int
            Updates, not micro-batches.
        """
        return iteration // (self.gradient_accumulation_steps or 1)

    def knows(self, variable: Any) -> bool:
        """Return whether the optimizer was built with a variable.

        Parameters
        ----------
        variable : keras.Variable
            A trainable variable.

        Returns
        -------
        bool
            True if it was.
        """
        return self._var_key(variable) in self._trainable_variables_indices

    def accumulators(self, variables: list[Any]) -> list[Any]:
        """Return the variables that hold accumulated gradients.

        Parameters
        ----------
        variables : list of keras.Variable
            Trainable variables that the optimizer was built with.

        Returns
        -------
        list of keras.Variable
            In the order of the variables; empty without accumulation.
        """
        if not self.gradient_accumulation_steps:
            return []
        return [self._accumulated_gradients[self._get_variable_index(v)] for v in variables]

    def stepped_buffers(self, variables: list[Any]) -> list[tf.Variable]:
        """Return the buffers of the weights after each update.

        Parameters
        ----------
        variables : list of keras.Variable
            Trainable variables that the optimizer was built with.

        Returns
        -------
        list of tf.Variable
            Each (slots, ...) in the order of the variables; empty if nothing is watched.
        """
        if self._stepped is None:
            return []
        return [self._stepped.buffers[self._get_variable_index(v)] for v in variables]

    def stepped(self, variables: list[Any]) -> list[bool]:
        """Return which variables the last traced step updated.

        Parameters
        ----------
        variables : list of keras.Variable
            Trainable variables that the optimizer was built with.

        Returns
        -------
        list of bool
            For each variable; True before the first step.
        """
        return [not self._updated or self._get_variable_index(v) in self._updated for v in variables]

    def decay_mask(self, variables: list[Any] | None = None) -> list[bool]:
        """Return which variables weight decay applies to (Keras skips those without a gradient).

        Parameters
        ----------
        variables : list of keras.Variable, optional
            Trainable variables that the optimizer was built with. Default: all.

        Returns
        -------
        list of bool
            For each variable.
        """
        variables = self._trainable_variables if variables is None else variables
        decays = self.weight_decay is not None
        return [
            decays and bool(self._use_weight_decay(variable.value)) and is_stepped
            for variable, is_stepped in zip(variables, self.stepped(variables), strict=True)
        ]


def _spec(variable: Any) -> tf.TensorSpec:
    return tf.TensorSpec(variable.shape, variable.dtype)


def _norm(gradients: Sequence[Any]) -> tf.Tensor:
    """Return the norm by which Keras clips. For sparse gradients it takes the slices before equal rows are added."""
    values = [g.values if isinstance(g, tf.IndexedSlices) else tf.convert_to_tensor(g) for g in gradients]
    return tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(value)) for value in values]))


def _clip_factor(norm: tf.Tensor, limit: float) -> tf.Tensor:
    limit = tf.constant(limit, norm.dtype)  # not a cast, which would round it to float32 first
    return tf.cast(limit / tf.maximum(norm, limit), tf.float64)
