"""The models of the paper's experiments, as plain Keras models (arXiv:2505.20076)."""

from explaind_tf.models.language import LanguageTransformer
from explaind_tf.models.resnet9 import ResNet9
from explaind_tf.models.transformer import (
    CausalSelfAttention,
    ModularTransformer,
    PositionEmbedding,
)

__all__ = ["CausalSelfAttention", "LanguageTransformer", "ModularTransformer", "PositionEmbedding", "ResNet9"]
