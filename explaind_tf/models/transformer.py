"""The one-layer decoder Transformer that groks modular addition."""

import math
from typing import Any, Final

import keras
from keras import ops

# Stands for a masked score. It is finite, so no derivative of the softmax computes inf - inf. It is
# small enough for exp() to give exactly 0, and fits into float16.
MASKED_SCORE: Final = -3e4


@keras.saving.register_keras_serializable(package="explaind_tf")
class PositionEmbedding(keras.layers.Layer):
    """Add a learned vector per position to a sequence of fixed length.

    Maps ``(batch, seq_len, d_model)`` to the same shape: ``y[:, t] = x[:, t] + positions[t]``.
    The only weight is ``positions``, of shape ``(seq_len, d_model)``, initialised from a normal
    distribution of standard deviation ``1/sqrt(d_model)``. Its arguments are those of
    :class:`keras.layers.Layer`: ``name``, ``dtype``, ``trainable``.

    Raises
    ------
    ValueError
        When the layer is built and the length or depth of the sequence is not known.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create ``positions``; the length and depth of the sequence must be known."""
        seq_len, d_model = _sequence_shape(type(self).__name__, input_shape)
        self.positions = self.add_weight(
            shape=(seq_len, d_model),
            initializer=_scaled_normal(d_model),
            name="positions",
        )

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Return ``inputs + positions``."""
        return inputs + self.positions

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return ``input_shape``."""
        return tuple(input_shape)


@keras.saving.register_keras_serializable(package="explaind_tf")
class CausalSelfAttention(keras.layers.Layer):
    """Multi-head self-attention in which a position sees itself and earlier ones only.

    Maps ``(batch, seq_len, d_model)`` to the same shape. Per head, with ``d = d_model/num_heads``
    and the softmax over the positions ``s <= t``::

        y[t] = sum_s softmax_s( q[t].k[s] / sqrt(d) ) v[s],  q, k, v = x W_query, x W_key, x W_value

    The heads' outputs are concatenated and multiplied by ``W_output``. The weights ``query``,
    ``key``, ``value`` and ``output`` are each ``(d_model, d_model)``, without biases. They are
    initialised from a normal distribution of standard deviation ``1/sqrt(d_model)``. Head ``h`` owns
    the columns ``h*d ... (h+1)*d`` of the first three and those rows of ``output``. The layer has
    no residual connection: the model adds it.

    Parameters
    ----------
    num_heads : int
        Number of heads; must divide ``d_model``.
    **kwargs
        ``name``, ``dtype``, ``trainable`` of :class:`keras.layers.Layer`.

    Raises
    ------
    ValueError
        If ``num_heads`` is below 1 or, when the layer is built, does not divide ``d_model``.
    """

    def __init__(self, num_heads: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_heads < 1:
            raise ValueError(f"`num_heads` must be at least 1. Received: num_heads={num_heads}.")
        self.num_heads = num_heads

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the four weights; the length and depth of the sequence must be known."""
        _, d_model = _sequence_shape(type(self).__name__, input_shape)
        _check_heads(d_model, self.num_heads)

        def add(name: str) -> keras.Variable:
            # An initializer that is used twice would give two equal weights.
            initializer = _scaled_normal(d_model)
            return self.add_weight(shape=(d_model, d_model), initializer=initializer, name=name)

        self.query_weight = add("query")
        self.key_weight = add("key")
        self.value_weight = add("value")
        # `self.output` is taken: every Keras operation has a read-only property of that name.
        self.output_weight = add("output")

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Attend; ``inputs`` and the result are ``(batch, seq_len, d_model)``."""
        _, seq_len, d_model = inputs.shape
        d_head = d_model // self.num_heads
        # One row per token, although a matmul of rank 3 with rank 2 exists: vectorised Jacobians of
        # it (tf.vectorized_map with oneDNN on CPU, TF 2.20 and 2.21) corrupt the heap.
        rows = ops.reshape(inputs, (-1, d_model))

        def heads(weight: keras.Variable) -> keras.KerasTensor:
            projected = ops.reshape(ops.matmul(rows, weight), (-1, seq_len, self.num_heads, d_head))
            return ops.transpose(projected, (0, 2, 1, 3))

        query, key, value = map(heads, (self.query_weight, self.key_weight, self.value_weight))
        scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))) / math.sqrt(d_head)
        positions = ops.arange(seq_len)
        visible = positions[:, None] >= positions[None, :]
        pattern = ops.softmax(ops.where(visible, scores, MASKED_SCORE), axis=-1)
        mixed = ops.transpose(ops.matmul(pattern, value), (0, 2, 1, 3))
        mixed = ops.matmul(ops.reshape(mixed, (-1, d_model)), self.output_weight)
        return ops.reshape(mixed, (-1, seq_len, d_model))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return ``input_shape``."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "num_heads": self.num_heads}


# Named like the class a user of Keras expects to find, although it builds a plain keras.Model.
def ModularTransformer(
    p: int = 113,
    *,
    d_model: int = 64,
    num_heads: int = 4,
    d_mlp: int = 512,
    seq_len: int = 4,
    dropout: float = 0.0,
    name: str = "modular_transformer",
) -> keras.Model:
    """Build the Transformer of the modular-addition experiment.

    It reads ``a + b =`` (token ids ``[a, p, b, p + 1]``, see
    :func:`explaind_tf.datasets.modular_addition`) and predicts ``(a + b) % p`` after "=". It has
    a token embedding and a learned position embedding, one layer of causal attention, one ReLU MLP
    and an untied unembedding. It returns the log-softmax of the last position. Attention and MLP
    have residual connections and no layer norm (arXiv:2505.20076, Grokking experiment).

    No layer has a bias. The default has 96,896 trainable weights: embedding and unembedding
    7,360 each, positions 256, attention 16,384, MLP 65,536. An unembedding tied to the embedding
    would make it 89,536. They are separate because the experiment studies each of them.

    Parameters
    ----------
    p : int, default 113
        The modulus. Vocabulary and outputs are ``p + 2``: the numbers, "+" and "=".
    d_model : int, default 64
        Depth of the residual stream; a multiple of ``num_heads``.
    num_heads : int, default 4
        Number of attention heads.
    d_mlp : int, default 512
        Hidden units of the MLP.
    seq_len : int, default 4
        Tokens in a sequence.
    dropout : float, default 0.0
        Dropout rate on what attention and MLP add to the residual stream, in [0, 1). With 0 there
        is no dropout layer, so no random state to record.
    name : str, default "modular_transformer"
        Name of the model.

    Returns
    -------
    keras.Model
        A functional model from int32 token ids ``(batch, seq_len)`` to log-probabilities
        ``(batch, p + 2)``. Compile it with ``SparseCategoricalCrossentropy(from_logits=True)``:
        log-probabilities are logits that are already normalised.

    Raises
    ------
    ValueError
        If a size is below 1 (``p``: below 2), ``num_heads`` does not divide ``d_model``, or
        ``dropout`` is outside [0, 1).

    Examples
    --------
    >>> model = ModularTransformer()
    >>> model.count_params()
    96896
    """
    sizes = {"d_model": d_model, "num_heads": num_heads, "d_mlp": d_mlp, "seq_len": seq_len}
    for argument, size in sizes.items():
        if size < 1:
            raise ValueError(f"`{argument}` must be at least 1. Received: {argument}={size}.")
    if p < 2:
        raise ValueError(f"`p`, the modulus, must be at least 2. Received: p={p}.")
    if not 0 <= dropout < 1:
        raise ValueError(f"`dropout` must be a rate in [0, 1). Received: dropout={dropout}.")
    _check_heads(d_model, num_heads)

    def dense(
        x: keras.KerasTensor, fan_in: int, units: int, layer: str, activation: str | None = None
    ) -> keras.KerasTensor:
        return keras.layers.Dense(
            units,
            activation=activation,
            use_bias=False,
            kernel_initializer=_scaled_normal(fan_in),
            name=layer,
        )(x)

    def residual(
        stream: keras.KerasTensor,
        update: keras.KerasTensor,
        block: str,
    ) -> keras.KerasTensor:
        if dropout > 0:
            update = keras.layers.Dropout(dropout, name=f"{block}_dropout")(update)
        return keras.layers.Add(name=f"{block}_add")([stream, update])

    tokens = keras.Input((seq_len,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(
        p + 2, d_model, embeddings_initializer=_scaled_normal(d_model), name="token_embedding"
    )(tokens)
    x = PositionEmbedding(name="position_embedding")(x)
    x = residual(x, CausalSelfAttention(num_heads, name="attention")(x), "attention")
    # Only the last position is read, and later layers act on each position alone. Dropping the
    # others here changes no output and no gradient, and divides the cost of the MLP by seq_len.
    x = keras.layers.Cropping1D((seq_len - 1, 0), name="last_position")(x)
    x = keras.layers.Flatten(name="residual_stream")(x)
    hidden = dense(x, d_model, d_mlp, "mlp_in", activation="relu")
    x = residual(x, dense(hidden, d_mlp, d_model, "mlp_out"), "mlp")
    x = dense(x, d_model, p + 2, "unembedding")
    x = keras.layers.Activation("log_softmax", name="log_probs")(x)
    return keras.Model(tokens, x, name=name)


def _scaled_normal(fan_in: int) -> keras.initializers.Initializer:
    """Return a normal initializer that keeps the variance of a sum over ``fan_in`` terms."""
    return keras.initializers.RandomNormal(stddev=1 / math.sqrt(fan_in))


def _check_heads(d_model: int, num_heads: int) -> None:
    if d_model % num_heads:
        raise ValueError(
            "`num_heads` must divide `d_model`, which the heads share evenly. Received: "
            f"d_model={d_model}, num_heads={num_heads}."
        )


def _sequence_shape(layer: str, input_shape: tuple[int | None, ...]) -> tuple[int, int]:
    """Return ``(seq_len, d_model)`` of the inputs of ``layer``."""
    match tuple(input_shape):
        case (_, int(seq_len), int(d_model)):
            return seq_len, d_model
    raise ValueError(
        f"{layer} needs inputs of shape (batch, seq_len, d_model) with known seq_len and "
        f"d_model. Received: input_shape={tuple(input_shape)}."
    )
