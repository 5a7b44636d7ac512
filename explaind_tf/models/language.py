"""A small decoder-only Transformer for language: pre-norm blocks of attention and MLP, a prediction at every position."""

import math

import keras

from explaind_tf.models.transformer import CausalSelfAttention, PositionEmbedding


# Named like the class a user of Keras expects to find, although it builds a plain keras.Model.
def LanguageTransformer(
    vocabulary: int = 256,
    *,
    seq_len: int = 64,
    blocks: int = 6,
    d_model: int = 128,
    num_heads: int = 4,
    d_mlp: int = 512,
    name: str = "language_transformer",
) -> keras.Model:
    """Build a decoder-only Transformer that predicts the next token at each position.

    It begins with a token embedding and a learned position embedding. Each block adds to the residual stream::

        x = x + attention(norm(x))        causal, see CausalSelfAttention
        x = x + mlp(norm(x))              GELU

    A last normalisation and an untied unembedding follow. Attention, MLP and unembedding have no biases. Layer
    normalisations have a scale and an offset. The whole model is smooth, so path integrals need few nodes.

    Layers are named by block: ``block0_attention_norm``, ``block0_attention``, ``block0_mlp_norm``, ``block0_mlp_in``,
    ``block0_mlp_out`` and so on. The default has 1,256,704 trainable weights.

    Parameters
    ----------
    vocabulary : int, default 256
        Number of tokens; bytes by default.
    seq_len : int, default 64
        Tokens of a sequence.
    blocks : int, default 6
        Number of blocks.
    d_model : int, default 128
        Depth of the residual stream; a multiple of ``num_heads``.
    num_heads : int, default 4
        Attention heads of a block.
    d_mlp : int, default 512
        Hidden units of an MLP.
    name : str, default "language_transformer"
        Name of the model.

    Returns
    -------
    keras.Model
        A functional model from int32 tokens ``(batch, seq_len)`` to logits ``(batch, seq_len, vocabulary)``. Logits at
        position t depend on the tokens up to t and predict token t + 1. Compile it with ``from_logits=True``.

    Raises
    ------
    ValueError
        If a size is below 1, or ``num_heads`` does not divide ``d_model``.

    Examples
    --------
    >>> model = LanguageTransformer()
    >>> model.count_params()
    1256704
    """
    sizes = {
        "vocabulary": vocabulary,
        "seq_len": seq_len,
        "blocks": blocks,
        "d_model": d_model,
        "num_heads": num_heads,
        "d_mlp": d_mlp,
    }
    for argument, size in sizes.items():
        if size < 1:
            raise ValueError(f"`{argument}` must be at least 1. Received: {argument}={size}.")

    def norm(x: keras.KerasTensor, layer: str) -> keras.KerasTensor:
        return keras.layers.LayerNormalization(epsilon=1e-5, name=layer)(x)

    def dense(
        x: keras.KerasTensor, units: int, layer: str, activation: str | None = None
    ) -> keras.KerasTensor:
        return keras.layers.Dense(
            units,
            activation=activation,
            use_bias=False,
            # Keeps the variance of a sum over the inputs, as the attention's own weights do.
            kernel_initializer=keras.initializers.VarianceScaling(distribution="untruncated_normal"),
            name=layer,
        )(x)

    tokens = keras.Input((seq_len,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(
        vocabulary,
        d_model,
        embeddings_initializer=keras.initializers.RandomNormal(stddev=1 / math.sqrt(d_model)),
        name="token_embedding",
    )(tokens)
    x = PositionEmbedding(name="position_embedding")(x)
    for block in (f"block{number}" for number in range(blocks)):
        update = CausalSelfAttention(num_heads, name=f"{block}_attention")(norm(x, f"{block}_attention_norm"))
        x = keras.layers.Add(name=f"{block}_attention_add")([x, update])
        hidden = dense(norm(x, f"{block}_mlp_norm"), d_mlp, f"{block}_mlp_in", activation="gelu")
        x = keras.layers.Add(name=f"{block}_mlp_add")([x, dense(hidden, d_model, f"{block}_mlp_out")])
    logits = dense(norm(x, "final_norm"), vocabulary, "unembedding")
    return keras.Model(tokens, logits, name=name)
