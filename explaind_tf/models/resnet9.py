"""ResNet-9, the small residual network that trains on CIFAR in minutes."""

from typing import Final

import keras

# Below this side the 3x3 convolution without padding (conv4) would have nothing left to see:
# 11 -> 6 (conv2, stride 2) -> 3 (pool3) -> 1 (conv4), whereas 10 -> 5 -> 2 -> nothing.
MIN_SIDE: Final = 11

# Keeps the logits of a fresh network small. Without BatchNorm, the first steps would otherwise
# saturate the softmax or send large gradients down the residual blocks.
LOGIT_SCALE: Final = 0.2


# Named like the class a user of Keras expects to find, although it builds a plain keras.Model.
def ResNet9(
    num_classes: int,
    *,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    width: float = 1.0,
    batch_norm: bool = False,
    name: str = "resnet9",
) -> keras.Model:
    """Build the ResNet-9 of the CIFAR-2 experiment.

    The layout is the nine-layer residual network customary in training-data attribution
    (channels at full width, output side for 32x32 inputs)::

        conv1       3x3   64            32
        conv2       5x5  128  stride 2  16
        res1_conv1  3x3  128            16    x + relu(conv(relu(conv(x))))
        res1_conv2  3x3  128            16
        conv3       3x3  256, pool 2x2   8
        res2_conv1  3x3  256             8    x + relu(conv(relu(conv(x))))
        res2_conv2  3x3  256             8
        conv4       3x3  128  unpadded   6, global max-pool
        logits      dense                     times 0.2

    Each convolution is followed by ReLU. Convolutions and ``logits`` have no bias. With two
    classes and 32x32x3 images the full width has 2,271,168 trainable weights. They are the 2.27 M of
    the paper's variant, which has no BatchNorm either (arXiv:2505.20076, CIFAR-2 experiment).

    Parameters
    ----------
    num_classes : int
        Number of outputs, at least 1.
    input_shape : tuple of int, default (32, 32, 3)
        Height, width and channels of an image. Height and width must be at least 11.
    width : float, default 1.0
        Factor on all channel counts, rounded to at least one channel; 0.25 is the narrow variant
        (142,320 trainable weights for two classes).
    batch_norm : bool, default False
        Put BatchNormalization between each convolution and its ReLU. Leave it off if a prediction
        must depend on the weights alone: BatchNorm statistics are state that moves without a gradient.
    name : str, default "resnet9"
        Name of the model.

    Returns
    -------
    keras.Model
        A functional model from images ``(batch, height, width, channels)``, floats scaled to
        [0, 1], to logits ``(batch, num_classes)``. It has no softmax, so compile it with
        ``from_logits=True``.

    Raises
    ------
    ValueError
        If ``num_classes``, ``input_shape`` or ``width`` is out of range.

    Examples
    --------
    >>> model = ResNet9(2)
    >>> model.count_params()
    2271168
    """
    _check_arguments(num_classes, input_shape, width)

    def channels(full: int) -> int:
        return max(1, round(full * width))

    def conv(
        x: keras.KerasTensor,
        full: int,
        layer: str,
        *,
        kernel_size: int = 3,
        strides: int = 1,
        padding: str = "same",
    ) -> keras.KerasTensor:
        x = keras.layers.Conv2D(
            channels(full),
            kernel_size,
            strides=strides,
            padding=padding,
            use_bias=False,
            # He: each ReLU cuts off half of its input, and no BatchNorm makes up for it.
            kernel_initializer=keras.initializers.HeNormal(),
            name=layer,
        )(x)
        if batch_norm:
            x = keras.layers.BatchNormalization(name=f"{layer}_bn")(x)
        return keras.layers.ReLU(name=f"{layer}_relu")(x)

    def residual(x: keras.KerasTensor, full: int, block: str) -> keras.KerasTensor:
        branch = conv(x, full, f"{block}_conv1")
        branch = conv(branch, full, f"{block}_conv2")
        return keras.layers.Add(name=f"{block}_add")([x, branch])

    images = keras.Input(input_shape, name="images")
    x = conv(images, 64, "conv1")
    x = conv(x, 128, "conv2", kernel_size=5, strides=2)
    x = residual(x, 128, "res1")
    x = conv(x, 256, "conv3")
    x = keras.layers.MaxPooling2D(2, name="pool3")(x)
    x = residual(x, 256, "res2")
    x = conv(x, 128, "conv4", padding="valid")
    x = keras.layers.GlobalMaxPooling2D(name="pool4")(x)
    x = keras.layers.Dense(num_classes, use_bias=False, name="logits")(x)
    # With a layer, and not `0.2 * x`, the model saves, clones and loads like any other.
    x = keras.layers.Rescaling(LOGIT_SCALE, name="logits_scale")(x)
    return keras.Model(images, x, name=name)


def _check_arguments(num_classes: int, input_shape: tuple[int, int, int], width: float) -> None:
    if num_classes < 1:
        raise ValueError(f"`num_classes` must be at least 1. Received: num_classes={num_classes}.")
    if not width > 0:
        raise ValueError(
            "`width` multiplies the channel counts and must be positive (1.0 is the full network, "
            f"0.25 the narrow one). Received: width={width}."
        )
    if len(input_shape) != 3 or any(side is None for side in input_shape):
        raise ValueError(
            "`input_shape` must be (height, width, channels), all known and without the batch "
            f"axis. Received: input_shape={input_shape}."
        )
    if min(input_shape[:2]) < MIN_SIDE or input_shape[2] < 1:
        raise ValueError(
            f"ResNet9 shrinks its input fourfold and then needs 3x3 pixels. `input_shape` must be "
            f"at least ({MIN_SIDE}, {MIN_SIDE}, 1). Received: input_shape={tuple(input_shape)}. "
            "Resize the images first, for example with "
            "`explaind_tf.datasets.digits(size=32, channels=3)` or `tf.image.resize`."
        )
