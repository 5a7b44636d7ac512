"""The architectures of KerasHub, in tiny configurations. Needs the package keras_hub."""

from collections.abc import Callable
from typing import Any

import keras
import keras_hub.models as hub
import numpy as np

from experiments.architectures.example import (
    CLASSES,
    IMAGE,
    LENGTH,
    SAMPLES,
    VOCABULARY,
    Example,
    classes,
    images,
    padding_mask,
    random_tokens,
)

_SIZES = {"vocabulary_size": VOCABULARY, "num_layers": 2, "hidden_dim": 16, "intermediate_dim": 32}
_QUERIES = {**_SIZES, "num_query_heads": 4, "num_key_value_heads": 2}
_HEADS = {**_SIZES, "num_heads": 2}
_MELS = 8
_FRAMES = 16


def _tokens() -> dict[str, np.ndarray]:
    return {"token_ids": random_tokens(), "padding_mask": padding_mask()}


def _next_tokens(model: keras.Model) -> Example:
    """Return a language model with random sequences, and the tokens that follow theirs."""
    return Example(model, _tokens(), random_tokens(1))


def _gpt2() -> Example:
    return _next_tokens(hub.GPT2CausalLM(hub.GPT2Backbone(**_HEADS, max_sequence_length=LENGTH)))


def _llama() -> Example:
    return _next_tokens(hub.LlamaCausalLM(hub.LlamaBackbone(**_QUERIES)))


def _gemma() -> Example:
    return _next_tokens(hub.GemmaCausalLM(hub.GemmaBackbone(**_QUERIES, head_dim=4)))


def _gemma2() -> Example:
    backbone = hub.GemmaBackbone(
        **_QUERIES,
        head_dim=4,
        use_post_ffw_norm=True,
        use_post_attention_norm=True,
        attention_logit_soft_cap=50.0,
        final_logit_soft_cap=30.0,
        use_sliding_window_attention=True,
        sliding_window_size=4,
    )
    return _next_tokens(hub.GemmaCausalLM(backbone))


def _mistral() -> Example:
    return _next_tokens(hub.MistralCausalLM(hub.MistralBackbone(**_QUERIES, sliding_window=4)))


def _qwen() -> Example:
    return _next_tokens(hub.QwenCausalLM(hub.QwenBackbone(**_QUERIES)))


def _bert() -> Example:
    model = hub.BertTextClassifier(
        hub.BertBackbone(**_HEADS, max_sequence_length=LENGTH), num_classes=CLASSES
    )
    segments = np.zeros((SAMPLES, LENGTH), "int32")
    segments[:, LENGTH // 2 :] = 1
    return Example(model, {**_tokens(), "segment_ids": segments}, classes())


def _decoder(backbone: keras.Model) -> keras.Model:
    """Return a model of the logits of the next token that the decoder of an encoder-decoder gives."""
    hidden = backbone.output["decoder_sequence_output"]
    logits = backbone.token_embedding(hidden, reverse=True)
    return keras.Model(backbone.input, logits)


def _decoded() -> dict[str, np.ndarray]:
    return {"decoder_token_ids": random_tokens(2), "decoder_padding_mask": padding_mask()}


def _t5() -> Example:
    inputs = {"encoder_token_ids": random_tokens(), "encoder_padding_mask": padding_mask(), **_decoded()}
    return Example(_decoder(hub.T5Backbone(**_HEADS)), inputs, random_tokens(1))


def _whisper() -> Example:
    backbone = hub.WhisperBackbone(
        **_HEADS, num_mels=_MELS, max_encoder_sequence_length=_FRAMES, max_decoder_sequence_length=LENGTH
    )
    sound = np.random.default_rng(0).normal(size=(SAMPLES, _FRAMES, _MELS)).astype("float32")
    return Example(_decoder(backbone), {"encoder_features": sound, **_decoded()}, random_tokens(1))


def _vit() -> Example:
    backbone = hub.ViTBackbone(
        image_shape=IMAGE, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32
    )
    return images(hub.ViTImageClassifier(backbone, num_classes=CLASSES), -1.0, 1.0)


def _resnet() -> Example:
    backbone = hub.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=IMAGE,
    )
    return images(hub.ResNetImageClassifier(backbone, num_classes=CLASSES), -1.0, 1.0)


def _efficientnet() -> Example:
    stacks: dict[str, Any] = {
        "stackwise_kernel_sizes": [3, 3, 5],
        "stackwise_num_repeats": [1, 2, 2],
        "stackwise_input_filters": [8, 8, 16],
        "stackwise_output_filters": [8, 16, 16],
        "stackwise_expansion_ratios": [1, 4, 4],
        "stackwise_squeeze_and_excite_ratios": [0.0, 0.0, 0.25],
        "stackwise_strides": [1, 2, 2],
        "stackwise_block_types": ["fused", "fused", "unfused"],
    }
    backbone = hub.EfficientNetBackbone(
        **stacks, width_coefficient=1.0, depth_coefficient=1.0, num_features=32, input_shape=IMAGE
    )
    return images(hub.EfficientNetImageClassifier(backbone, num_classes=CLASSES), -1.0, 1.0)


HUB: dict[str, Callable[[], Example]] = {
    "GPT-2": _gpt2,
    "Llama": _llama,
    "Gemma": _gemma,
    "Gemma 2": _gemma2,
    "Mistral": _mistral,
    "Qwen": _qwen,
    "BERT": _bert,
    "T5": _t5,
    "Whisper": _whisper,
    "ViT": _vit,
    "ResNet": _resnet,
    "EfficientNet": _efficientnet,
}
