"""Models: variables in the order of θ, with forward passes written by hand."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tests.oracle.losses import log_softmax

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Variable:
    """A trainable variable with the path ``layer/name``."""

    layer: str
    name: str
    shape: tuple[int, ...]

    @property
    def path(self) -> str:
        return f"{self.layer}/{self.name}"

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def decayed(self) -> bool:
        """Whether weight decay applies: biases are excluded."""
        return self.name != "bias"


@dataclass(frozen=True)
class Network:
    """A model: its variables in the order of θ, and a forward pass ``(variables by path, x) -> (batch, O)``.

    ``embedding`` is the path of the table that the tokens x index, if there is one.
    """

    variables: tuple[Variable, ...]
    forward: Callable[[Arrays, np.ndarray], np.ndarray]
    embedding: str | None = None

    @property
    def size(self) -> int:
        return sum(variable.size for variable in self.variables)

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(variable.layer for variable in self.variables))

    def outputs(self, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
        return self.forward(self.unflatten(theta), x)

    def unflatten(self, theta: np.ndarray) -> Arrays:
        values, start = {}, 0
        for variable in self.variables:
            values[variable.path] = theta[start : start + variable.size].reshape(variable.shape)
            start += variable.size
        assert start == len(theta)
        return values

    def weights_of(self, layer: str) -> np.ndarray:
        """Return which weights belong to a layer, shape (D,), bool."""
        return np.concatenate([np.full(v.size, v.layer == layer) for v in self.variables])

    def is_embedding(self) -> np.ndarray:
        """Return which weights belong to the embedding, shape (D,), bool."""
        return np.concatenate([np.full(v.size, v.path == self.embedding) for v in self.variables])

    def decay_mask(self) -> np.ndarray:
        return np.concatenate([np.full(v.size, float(v.decayed)) for v in self.variables])


def _dense_variables(layer: str, fan_in: int, fan_out: int) -> tuple[Variable, Variable]:
    return Variable(layer, "kernel", (fan_in, fan_out)), Variable(layer, "bias", (fan_out,))


def _dense(values: Arrays, layer: str, x: np.ndarray) -> np.ndarray:
    return x @ values[f"{layer}/kernel"] + values[f"{layer}/bias"]


def dense_network(features: int, hidden: int, outputs: int) -> Network:
    """Dense (tanh) "hidden" → Dense "readout"."""

    def forward(values: Arrays, x: np.ndarray) -> np.ndarray:
        return _dense(values, "readout", np.tanh(_dense(values, "hidden", x)))

    variables = _dense_variables("hidden", features, hidden) + _dense_variables("readout", hidden, outputs)
    return Network(variables, forward)


def convolutional_network(side: int, channels: int, filters: int, pool: int, outputs: int) -> Network:
    """Conv2D 3×3, "same", tanh "conv" → average over pool × pool → flatten → Dense "readout"."""
    pooled = side // pool

    def forward(values: Arrays, x: np.ndarray) -> np.ndarray:
        framed = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
        maps = values["conv/bias"]
        for row in range(3):
            for column in range(3):
                window = framed[:, row : row + side, column : column + side]
                maps = maps + window @ values["conv/kernel"][row, column]
        tiles = np.tanh(maps).reshape(len(x), pooled, pool, pooled, pool, filters)
        return _dense(values, "readout", tiles.mean(axis=(2, 4)).reshape(len(x), -1))

    kernel = Variable("conv", "kernel", (3, 3, channels, filters))
    bias = Variable("conv", "bias", (filters,))
    readout = _dense_variables("readout", pooled * pooled * filters, outputs)
    return Network((kernel, bias, *readout), forward)


def attention_network(tokens: int, depth: int, hidden: int, outputs: int) -> Network:
    """Embedding "tokens" → attention "attention" plus a skip → Dense (tanh) "mlp" → last position → Dense."""

    def forward(values: Arrays, x: np.ndarray) -> np.ndarray:
        states = values["tokens/embeddings"][x]
        query = states @ values["attention/query"]
        key = states @ values["attention/key"]
        value = states @ values["attention/value"]
        pattern = np.exp(log_softmax(query @ np.swapaxes(key, 1, 2) / np.sqrt(depth)))
        states = states + pattern @ value @ values["attention/output"]
        return _dense(values, "readout", np.tanh(_dense(values, "mlp", states))[:, -1])

    embedding = Variable("tokens", "embeddings", (tokens, depth))
    names = ("query", "key", "value", "output")
    projections = [Variable("attention", name, (depth, depth)) for name in names]
    mlp, readout = _dense_variables("mlp", depth, hidden), _dense_variables("readout", hidden, outputs)
    return Network((embedding, *projections, *mlp, *readout), forward, embedding.path)
