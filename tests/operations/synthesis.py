"""A function of a flat point for a public name of Keras, with arguments that are found by trying."""

import inspect
import itertools
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.helpers import dtype_policy
from tests.operations.arguments import TENSORS, Floats, Fresh, candidates, is_worth_giving

# Values of inputs are drawn from these intervals; to the last, four times the identity is added.
DOMAINS = ((-1.0, 1.0), (0.1, 0.9), (1.1, 2.0), (-1.0, 1.0))
_OF_IMAGES, _DOMINANT = 1, 3
# How many combinations of arguments are tried, how many more once one has run, and how many if all fail in the same way.
_TRIES, _MORE, _ALIKE = 600, 300, 300
# How many more once one has run that cannot be traced.
_UNTRACED = 30
# Numbers of a long signal.
_LONG = 1000
# How many points of each domain are tried.
_ROUNDS = 2

NO_INPUT = "it has no floating-point input"
NO_OUTPUT = "it gives no floating-point tensor"


@dataclass(frozen=True)
class Found:
    """A function z -> outputs, both flat, a point at which it is finite, and what holds its variables."""

    function: Any
    point: np.ndarray
    holder: Any = None


@dataclass(frozen=True)
class NotFound:
    """No such function: the name has no derivative, or no arguments were found."""

    outcome: str
    reason: str


def synthesised(name: str, value: Any) -> Found | NotFound:
    """Return a function for a public name: in float64, or in float32 if it takes nothing else.

    Of all arguments that are tried, those are taken first with which the outputs depend on the inputs.
    """
    if not callable(value):
        return NotFound("no derivative", "it is not a function")
    for policy in ("float64", "float32"):
        with dtype_policy(policy):
            search = _Search(np.random.default_rng(zlib.crc32(name.encode())))
            for with_optional in (False, True):
                for attempt in itertools.islice(_attempts(value, with_optional), _TRIES):
                    if search.tries_left == 0:
                        break
                    search.attempt(attempt)
            found = search.result()
            if isinstance(found, Found) or found.reason == NO_OUTPUT:
                return found
    return found


class _Search:
    """Remembers the best of all attempts."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._constant: Found | None = None
        self._dependent: Found | None = None
        self._without: str | None = None
        self._error = self._untraced = ""
        self._errors: Counter[str] = Counter()
        self.tries_left = 2 * _TRIES

    def attempt(self, attempt: "Attempt") -> None:
        """Run an attempt at points of all domains, until it is finite and does not jump."""
        self.tries_left -= 1
        try:
            leaves = attempt.leaves()
        except Exception as error:
            self._failed(error)
            return
        for domain in [*range(len(DOMAINS))] * _ROUNDS:
            try:
                if self._run(attempt, leaves, domain):
                    return
            except Exception as error:
                self._failed(error)
                if not any(leaf.is_square for leaf in leaves):
                    return

    def _failed(self, error: Exception) -> None:
        """Remember what the first error says, and give up if many say the same."""
        told = _sentence(error)
        self._error = self._error or told
        alike = re.sub(r"_\d+", "", told)  # layers are numbered
        self._errors[alike] += 1
        if self._errors[alike] == _ALIKE:
            self.tries_left = 0

    def _run(self, attempt: "Attempt", leaves: list[Floats], domain: int) -> bool:
        point = np.concatenate([np.zeros(0), *(_drawn(leaf, domain, self._rng) for leaf in leaves)])
        outputs = attempt.function(tf.constant(point)).numpy()
        if not point.size or not outputs.size:
            self._without = self._without or (NO_OUTPUT if not outputs.size else NO_INPUT)
            self.tries_left = min(self.tries_left, _MORE)
            return True
        if not np.all(np.isfinite(outputs)):
            return False
        # One that is constant is enough. There are many such attempts, and the points below take most of the time.
        if self._constant is not None and np.array_equal(_nearby(attempt, point, self._rng), outputs):
            return False
        if not _is_steady(attempt, point, outputs, self._rng):
            return False
        # Where one number of many jumps, as in a floor, some points nearby give other outputs, but not all.
        depends = all(np.any(_nearby(attempt, point, self._rng) != outputs) for _ in range(3))
        if depends or self._constant is None:
            spec = tf.TensorSpec(point.shape, tf.float64)
            traced = tf.function(attempt.function, input_signature=[spec], autograph=False)
            try:
                # As a function, it would be traced again when it is saved, perhaps under another policy.
                traced = traced.get_concrete_function()
            except Exception as error:
                self._untraced = self._untraced or f"it runs, but Keras cannot trace it. {_sentence(error)}"
                self.tries_left = min(self.tries_left, _UNTRACED)
                return True
            found = Found(traced, point, attempt)
            self._constant, self._dependent = found, found if depends else None
        self.tries_left = 0 if depends else min(self.tries_left, _MORE)
        return depends

    def result(self) -> Found | NotFound:
        """Return what was found."""
        if self._dependent or self._constant:
            return self._dependent or self._constant
        if self._untraced:
            return NotFound("not tried", self._untraced)
        if self._without:
            return NotFound("no derivative", self._without)
        return NotFound("not tried", self._error or "it cannot be made, or it draws random numbers")


@dataclass(frozen=True)
class Attempt:
    """A function of z, and what z is made of. Both are asked for anew, as a layer has weights only once it was called."""

    function: Callable[[tf.Tensor], tf.Tensor]
    leaves: Callable[[], list[Floats]]


def _drawn(leaf: Floats, domain: int, rng: np.random.Generator) -> np.ndarray:
    values = rng.uniform(*DOMAINS[_OF_IMAGES if leaf.is_image else domain], size=leaf.count)
    shape = leaf.shape
    if domain == _DOMINANT and leaf.is_square:
        values = (values.reshape(shape) + 4 * np.eye(shape[-1])).reshape(-1)
    return values


def _nearby(attempt: "Attempt", point: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the outputs at a point beside another one."""
    outputs: np.ndarray = attempt.function(tf.constant(point + 1e-6 * rng.normal(size=point.shape))).numpy()
    return outputs


def _is_steady(attempt: "Attempt", point: np.ndarray, outputs: np.ndarray, rng: np.random.Generator) -> bool:
    """Return whether outputs do not jump around a point: the order of eigenvalues may."""
    for _ in range(5):
        moved = _nearby(attempt, point, rng)
        if moved.shape != outputs.shape or np.any(np.abs(moved - outputs) > 1e-4 * (1.0 + np.abs(outputs))):
            return False
    return True


def _sentence(error: Exception) -> str:
    """Return what an error says, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _attempts(value: Any, with_optional: bool) -> Iterator[Attempt]:
    """Give attempts for a function, or for what a class makes: a layer or a loss."""
    if not inspect.isclass(value):
        for arguments, options in _combinations(value, with_optional):
            yield _of_function(value, arguments, options)
        return
    for arguments, options in _combinations(value, with_optional):
        try:
            made = value(*filled(arguments), **filled(options))
        except Exception:
            continue
        if not callable(made):
            yield _of_function(lambda made=made: made, [], {})
            continue
        is_layer = isinstance(made, keras.layers.Layer)
        for inputs, others in _combinations(getattr(made, "call", made), with_optional):
            # A layer that was called with one shape takes no other.
            made = value(*filled(arguments), **filled(options)) if is_layer else made
            yield (_of_layer if is_layer else _of_function)(made, inputs, others)


def _combinations(function: Any, with_optional: bool) -> Iterator[tuple[list[Any], dict[str, Any]]]:
    """Give arguments for all parameters that need one, simple ones first; optional ones too if the name says what."""
    required, optional = _parameters(function, with_optional)
    choices = [candidates(name) for name in required] + [[*candidates(name), None] for name in optional]
    if len(choices) > 1:  # one long signal is enough
        choices = [
            [one for one in choice if sum(leaf.count for leaf in _floats(one)) < _LONG] for choice in choices
        ]
    while np.prod([float(len(choice)) for choice in choices]) > 60_000:
        choices = [choice[: max(2, len(choice) - 4)] for choice in choices]
    has_floats = [[bool(_floats(candidate)) for candidate in choice] for choice in choices]

    def simplicity(places: tuple[int, ...]) -> tuple[int, bool, int]:
        """Put arguments that differ less first, tensors of one shape; among them those with floating-point numbers."""
        floats = any(choice[place] for choice, place in zip(has_floats, places, strict=True))
        return len(set(places)), not floats, sum(places)

    for places in sorted(itertools.product(*(range(len(choice)) for choice in choices)), key=simplicity):
        chosen = [choice[place] for choice, place in zip(choices, places, strict=True)]
        yield chosen[: len(required)], dict(zip(optional, chosen[len(required) :], strict=True))


def _parameters(function: Any, with_optional: bool) -> tuple[list[str], list[str]]:
    """Return the parameters without a default; those of ``*operands`` twice; and optional ones."""
    required, optional = [], []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            required += [parameter.name] * 2
        elif parameter.kind is parameter.VAR_KEYWORD or parameter.name == "training":
            continue
        elif parameter.default is parameter.empty:
            required.append(parameter.name)
        elif with_optional and parameter.default is None and is_worth_giving(parameter.name):
            optional.append(parameter.name)
    return required, optional


def _of_function(function: Any, arguments: Sequence[Any], options: dict[str, Any]) -> Attempt:
    """Return an attempt to call a function; if that returns another function, to call this one, too."""
    nest = (list(arguments), options)

    def leaves() -> list[Floats]:
        try:
            made = function(*filled(arguments), **filled(options))
        except Exception:  # it may run at another point
            made = None
        returned = len(_parameters(made, False)[0]) if inspect.isroutine(made) else 0
        return [*_floats(nest), *TENSORS[:1] * returned]

    def call(point: tf.Tensor) -> tf.Tensor:
        (given, named), rest = _bound(nest, point)
        made = function(*given, **named)
        if inspect.isroutine(made):
            (leaf, *_) = TENSORS
            made = made(*(leaf.of(part) for part in tf.split(rest, rest.shape[0] // leaf.count)))
        return flat(made)

    return Attempt(call, leaves)


def _of_layer(layer: keras.layers.Layer, arguments: Sequence[Any], options: dict[str, Any]) -> Attempt:
    """Return an attempt to call a layer in inference mode, as a function of its inputs and all float weights."""
    nest = (list(arguments), options)
    takes = {"training": False} if "training" in inspect.signature(layer.call).parameters else {}

    def leaves() -> list[Floats]:
        given, named = filled(nest)
        layer(*given, **named, **takes)
        return [*_floats(nest), *(Floats(tuple(own.shape)) for own in layer.variables if _is_float(own))]

    def call(point: tf.Tensor) -> tf.Tensor:
        (given, named), rest = _bound(nest, point)
        values = {}
        for own in layer.variables:
            leaf = Floats(tuple(own.shape))
            if _is_float(own):
                part, rest = rest[: leaf.count], rest[leaf.count :]
                values[id(own)] = leaf.of(part)
            else:
                with tf.init_scope():  # its value, not the variable
                    values[id(own)] = own.numpy()
        kinds = (layer.trainable_variables, layer.non_trainable_variables)
        outputs, _ = layer.stateless_call(
            *([values[id(own)] for own in kind] for kind in kinds), *given, **named, **takes
        )
        return flat(outputs)

    return Attempt(call, leaves)


def _is_float(variable: Any) -> bool:
    return keras.backend.is_float_dtype(variable.dtype)


def _floats(nest: Any) -> list[Floats]:
    return [leaf for leaf in tf.nest.flatten(nest) if isinstance(leaf, Floats)]


def filled(nest: Any) -> Any:
    """Return arguments of which nothing depends on z, with objects made anew."""
    return _bound(nest, tf.constant(np.linspace(0.2, 0.8, sum(leaf.count for leaf in _floats(nest)))))[0]


def _bound(nest: Any, point: tf.Tensor) -> tuple[Any, tf.Tensor]:
    """Return a nest of arguments with its tensors taken from a point, and the rest of the point."""
    place = 0

    def one(leaf: Any) -> Any:
        nonlocal place
        if isinstance(leaf, Fresh):
            return leaf.make()
        if not isinstance(leaf, Floats):
            return leaf
        place += leaf.count
        return leaf.of(point[place - leaf.count : place])

    return tf.nest.map_structure(one, nest), point[place:]


def flat(result: Any) -> tf.Tensor:
    """Return all floating-point tensors of a result as one vector in float64, complex ones as two real ones."""
    parts = [tf.zeros(0, tf.float64)]
    for leaf in tf.nest.flatten(result):
        if tf.is_tensor(leaf) and leaf.dtype.is_complex:
            parts += [tf.math.real(leaf), tf.math.imag(leaf)]
        elif tf.is_tensor(leaf) and leaf.dtype.is_floating:
            parts.append(leaf)
    return tf.concat([tf.reshape(tf.cast(part, tf.float64), (-1,)) for part in parts], axis=0)
