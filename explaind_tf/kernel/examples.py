"""Gradients of single examples from one forward and one backward pass over all of them.

The passes give, at every use of a variable, what the operation read and the gradient δ by what it returned. A rule
makes of both the examples' gradients, or their scalar products with rows Ψ.
"""

from collections.abc import Iterator, Sequence

import tensorflow as tf

from explaind_tf.kernel.rules import Rule, rule_of
from explaind_tf.kernel.uses import Rearrangement, Use, find_uses, rearrangement


class ExampleGradients:
    """The gradients of K examples in a graph that is being built.

    Parameters
    ----------
    outputs, cotangent : tf.Tensor
        What is differentiated, and with which weights; the first axis is that of the examples.
    variables : sequence of tf.Tensor
        By which to differentiate.
    examples : sequence of tf.Tensor
        What differs between examples.
    count : tf.Tensor
        K.

    Raises
    ------
    NotCoveredError
        If a variable meets examples in a way that has no rule.
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
        found = tf.gradients(outputs, list(by_output.values()), grad_ys=cotangent) if uses else []
        self._deltas = dict(zip(by_output, found, strict=True))

    def _each(self) -> Iterator[tuple[Use, Rule, Rearrangement | None, tf.Tensor]]:
        for (use, rule), place in zip(self._rules, self._places, strict=True):
            delta = self._deltas[use.output.name]
            if delta is not None:
                yield use, rule, place, tf.convert_to_tensor(delta)

    def gradients(self) -> tf.Tensor:
        """Return all of them, flat, in the order of the variables, shape (K, Z)."""
        parts = self._from_mixtures()
        for use, rule, place, delta in self._each():
            if place is not None:
                own = place.undo(rule.gradients(use, delta, self._count))
                parts[place.variable].append(self._flat(own, place.variable))
        zero = tf.zeros((), self._variables[0].dtype)
        sizes = [variable.shape.num_elements() for variable in self._variables]
        whole = [
            tf.cast(tf.add_n(found), zero.dtype) if found else tf.fill((self._count, size), zero)
            for found, size in zip(parts, sizes, strict=True)
        ]
        return tf.concat(whole, axis=1)

    def contract(self, rows: Sequence[tf.Tensor]) -> tf.Tensor:
        """Return the scalar products with rows, variable by variable, shape (F, K, V).

        Parameters
        ----------
        rows : sequence of tf.Tensor
            Ψ for each variable, shape (F, *variable).
        """
        found: list[list[tf.Tensor]] = [
            [
                tf.matmul(self._flat(rows[index], index), tf.cast(own, rows[index].dtype), transpose_b=True)
                for own in mixtures
            ]
            for index, mixtures in enumerate(self._from_mixtures())
        ]
        for use, rule, place, delta in self._each():
            if place is not None:
                # The dtype of the point is not that of every variable.
                own = tf.cast(place.rearrange(rows[place.variable]), delta.dtype)
                products = rule.contract(use, delta, self._count, own)
                found[place.variable].append(tf.cast(products, rows[0].dtype))
        zeros = tf.zeros((tf.shape(rows[0])[0], self._count), rows[0].dtype)
        return tf.stack([tf.add_n(terms) if terms else zeros for terms in found], axis=-1)

    def _flat(self, rows: tf.Tensor, variable: int) -> tf.Tensor:
        return tf.reshape(rows, (-1, self._variables[variable].shape.num_elements()))

    def _from_mixtures(self) -> list[list[tf.Tensor]]:
        """Return, for each variable, the gradients through sources that are more than one variable rearranged.

        BatchNorm in inference, for one, computes a scale and an offset of four variables. They are small, and so is
        the graph from the variables to them: it is differentiated for one example at a time.
        """
        parts: list[list[tf.Tensor]] = [[] for _ in self._variables]
        mixtures = [
            (use.source, rule.gradients(use, delta, self._count))
            for use, rule, place, delta in self._each()
            if place is None
        ]
        if not mixtures:
            return parts
        sources = [source for source, _ in mixtures]

        def pull_back(own: list[tf.Tensor]) -> list[tf.Tensor]:
            found = tf.gradients(sources, self._variables, grad_ys=own, unconnected_gradients="zero")
            return [tf.reshape(tf.convert_to_tensor(g), (-1,)) for g in found]

        reached = _reached(sources, self._variables)
        signature = [
            tf.TensorSpec((v.shape.num_elements() if is_reached else 0,), v.dtype)
            for v, is_reached in zip(self._variables, reached, strict=True)
        ]
        pulled = tf.map_fn(
            lambda own: [g if r else g[:0] for g, r in zip(pull_back(own), reached, strict=True)],
            [gradients for _, gradients in mixtures],
            fn_output_signature=signature,
            parallel_iterations=16,
        )
        for part, rows, is_reached in zip(parts, pulled, reached, strict=True):
            if is_reached:
                part.append(rows)
        return parts


def _reached(sources: list[tf.Tensor], variables: list[tf.Tensor]) -> list[bool]:
    return [gradient is not None for gradient in tf.gradients(sources, variables)]
