"""Gradients of single examples from one forward and one backward pass over all of them.

At every use of a variable, the passes give the *taps*: what the operation read, and the gradient δ with respect to what
it returned. From these, a rule computes the examples' gradients, or their scalar products with rows Ψ.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from explaind_tf.kernel.operations.reverse_mode import gradients
from explaind_tf.kernel.operations.rule import Rule, scalar_products
from explaind_tf.kernel.operations.table import rule_of
from explaind_tf.kernel.operations.uses import Rearrangement, Use, find_uses, rearrangement
from explaind_tf.kernel.points import cut, pack


class ExampleGradients:
    """The gradients of K examples in a graph that is being built.

    Parameters
    ----------
    outputs, cotangent : tf.Tensor
        What is differentiated, and its weights; the first axis is that of the examples.
    variables : sequence of tf.Tensor
        What to differentiate with respect to.
    examples : sequence of tf.Tensor
        What differs between examples.
    count : tf.Tensor
        K.

    Raises
    ------
    NotCoveredError
        If an operation that reads a variable and examples has no rule.
    """

    def __init__(
        self,
        outputs: tf.Tensor,
        cotangent: tf.Tensor | None,
        variables: Sequence[tf.Tensor],
        examples: Sequence[tf.Tensor],
        count: tf.Tensor,
    ) -> None:
        self._variables, self._count = list(variables), count
        uses = find_uses(outputs, variables, examples)
        self._rules: list[tuple[Use, Rule]] = [(use, rule_of(use)) for use in uses]
        self._places: list[Rearrangement | None] = [rearrangement(use.source, variables) for use in uses]
        by_output = {use.output.name: use.output for use in uses}
        found = gradients(outputs, list(by_output.values()), cotangent) if uses else []
        self._deltas = {
            name: None if delta is None else tf.convert_to_tensor(delta)
            for name, delta in zip(by_output, found, strict=True)
        }
        self._mixed = self._mixed_variables()

    def taps(self) -> list[tf.Tensor]:
        """Return the taps, from which the gradients are computed, each of shape (K, rows, ...).

        Taps of several points may be concatenated along the second axis: gradients add up along it.
        """
        found = [
            tap
            for (use, rule), place in zip(self._rules, self._places, strict=True)
            if place is not None and (delta := self._delta(use)) is not None
            for tap in rule.taps(delta, self._count)
        ]
        return found + [rows[:, None] for rows in self._from_mixtures()]

    def gradients(self, taps: Sequence[tf.Tensor] | None = None, count: tf.Tensor | None = None) -> tf.Tensor:
        """Return the gradients, flat, in the order of the variables, shape (K, Z).

        Parameters
        ----------
        taps : sequence of tf.Tensor, optional
            By default those of these examples. Given taps may be in another graph: no value of the graph of these
            examples is read.
        count : tf.Tensor, optional
            K of given taps.
        """
        terms, mixtures, count = self._assigned(taps, count)
        parts: list[list[tf.Tensor]] = [[] for _ in self._variables]
        for variable, rows in mixtures:
            parts[variable].append(rows)
        for rule, place, own in terms:
            parts[place.variable].append(self._flat(place.undo(rule.gradients(own)), place.variable))
        dtype = self._variables[0].dtype
        sizes = [variable.shape.num_elements() for variable in self._variables]
        whole = [
            tf.cast(tf.add_n(found), dtype) if found else tf.zeros((count, size), dtype)
            for found, size in zip(parts, sizes, strict=True)
        ]
        return tf.concat(whole, axis=1)

    def contract(
        self,
        rows: Sequence[tf.Tensor],
        taps: Sequence[tf.Tensor] | None = None,
        count: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Return the scalar products with rows, variable by variable, shape (F, K, V).

        Parameters
        ----------
        rows : sequence of tf.Tensor
            Ψ for each variable, shape (F, *variable).
        taps, count : optional
            As in :meth:`gradients`.
        """
        terms, mixtures, count = self._assigned(taps, count)
        found: list[list[tf.Tensor]] = [[] for _ in self._variables]
        for index, mixed in mixtures:
            own = tf.cast(mixed, rows[index].dtype)
            found[index].append(scalar_products(self._flat(rows[index], index), own))
        for rule, place, taps_of_rule in terms:
            # A variable may have another dtype than the point.
            own = tf.cast(place.rearrange(rows[place.variable]), taps_of_rule[-1].dtype)
            found[place.variable].append(tf.cast(rule.contract(taps_of_rule, own), rows[0].dtype))
        zeros = tf.zeros((tf.shape(rows[0])[0], count), rows[0].dtype)
        return tf.stack([tf.add_n(products) if products else zeros for products in found], axis=-1)

    def _delta(self, use: Use) -> tf.Tensor | None:
        return self._deltas[use.output.name]

    def _assigned(
        self, taps: Sequence[tf.Tensor] | None, count: tf.Tensor | None
    ) -> tuple[list[tuple[Rule, Rearrangement, list[tf.Tensor]]], list[tuple[int, tf.Tensor]], tf.Tensor]:
        """Return the taps by rule, the gradients through mixtures by variable, and the number of examples."""
        left = list(self.taps() if taps is None else taps)
        terms = []
        for (use, rule), place in zip(self._rules, self._places, strict=True):
            if place is not None and self._delta(use) is not None:
                terms.append((rule, place, [left.pop(0) for _ in range(rule.tap_count)]))
        mixtures = [
            (index, rows)
            for indices, tap in zip(self._mixed, left, strict=True)
            for index, rows in zip(indices, self._split(tf.reduce_sum(tap, axis=1), indices), strict=True)
        ]
        return terms, mixtures, self._count if count is None else count

    def _split(self, rows: tf.Tensor, indices: Sequence[int]) -> list[tf.Tensor]:
        sizes = [self._variables[index].shape.num_elements() for index in indices]
        return list(tf.split(rows, sizes, axis=1))

    def _flat(self, rows: tf.Tensor, variable: int) -> tf.Tensor:
        return tf.reshape(rows, (-1, self._variables[variable].shape.num_elements()))

    def _mixtures(self) -> list[tuple[Use, Rule, tf.Tensor]]:
        return [
            (use, rule, delta)
            for (use, rule), place in zip(self._rules, self._places, strict=True)
            if place is None and (delta := self._delta(use)) is not None
        ]

    def _mixed_variables(self) -> list[list[int]]:
        """Return the variables that mixtures are made of, those of a type together."""
        sources = [use.source for use, _, _ in self._mixtures()]
        if not sources:
            return []
        found = gradients(sources, self._variables)
        pairs = enumerate(zip(self._variables, found, strict=True))
        return _by_type({index: variable for index, (variable, gradient) in pairs if gradient is not None})

    def _from_mixtures(self) -> list[tf.Tensor]:
        """Return the gradients (K, sizes) by mixed variables through sources that are no single rearranged variable.

        BatchNorm in inference, for example, computes a scale and an offset from four variables. Such sources are small,
        and so is the graph from the variables to them. It is differentiated one example at a time. A deep model has
        hundreds of them, so those of a type enter and leave the loop as one tensor.
        """
        mixtures = self._mixtures()
        if not mixtures:
            return []
        sources = [use.source for use, _, _ in mixtures]
        upstream = [rule.gradients(rule.taps(delta, self._count)) for _, rule, delta in mixtures]
        of_sources = _by_type(dict(enumerate(upstream)))
        variables = {index: self._variables[index] for indices in self._mixed for index in indices}

        def pull_back(packed: list[tf.Tensor]) -> list[tf.Tensor]:
            own: list[Any] = [None] * len(sources)
            for places, vector in zip(of_sources, packed, strict=True):
                for place, cotangent in zip(places, cut(vector, [sources[p] for p in places]), strict=True):
                    own[place] = cotangent
            found = dict(zip(variables, gradients(sources, list(variables.values()), own), strict=True))
            return [
                pack([tf.convert_to_tensor(found[index]) for index in indices], variables[indices[0]].dtype)
                for indices in self._mixed
            ]

        return tf.map_fn(
            pull_back,
            [tf.concat([_rows(upstream[p]) for p in places], axis=1) for places in of_sources],
            fn_output_signature=[
                tf.TensorSpec(
                    (sum(variables[index].shape.num_elements() for index in indices),),
                    variables[indices[0]].dtype,
                )
                for indices in self._mixed
            ],
            parallel_iterations=16,
        )


def _by_type(tensors: dict[int, tf.Tensor]) -> list[list[int]]:
    """Return the keys of tensors, those of a type together."""
    found: dict[tf.DType, list[int]] = {}
    for key, tensor in tensors.items():
        found.setdefault(tensor.dtype, []).append(key)
    return list(found.values())


def _rows(tensor: tf.Tensor) -> tf.Tensor:
    """Return a tensor (K, ...) as rows, shape (K, size)."""
    return tf.reshape(tensor, (-1, tensor.shape[1:].num_elements()))
