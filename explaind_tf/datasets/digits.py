"""Scikit-learn's handwritten digits: real images without a download."""

import numpy as np
import numpy.typing as npt
import tensorflow as tf

Split = tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]


def digits(
    *,
    size: int = 8,
    channels: int = 1,
    num_test: int = 500,
    seed: int = 0,
) -> tuple[Split, Split]:
    """Return a shuffled split of the 1,797 handwritten digits of scikit-learn.

    The images come with scikit-learn, so nothing is downloaded. They are the test part of the UCI
    Optical Recognition of Handwritten Digits. Their 17 grey levels are scaled to [0, 1].

    Parameters
    ----------
    size : int, default 8
        Height and width. With another size than 8, images are resized bilinearly
        (``tf.image.resize``). 32 suits :func:`explaind_tf.models.ResNet9`.
    channels : int, default 1
        Number of channels, each with the same grey value.
    num_test : int, default 500
        Test images, between 0 and 1,796; all others are training images.
    seed : int, default 0
        Seed of the shuffle. The same seed gives the same split at any ``size``.

    Returns
    -------
    (x_train, y_train), (x_test, y_test) : tuple of tuples of numpy.ndarray
        ``x`` float32 in [0, 1] of shape ``(n, size, size, channels)``; ``y`` int32 of shape
        ``(n,)``, the digit.

    Raises
    ------
    ImportError
        If scikit-learn is missing. The message says how to install it.
    ValueError
        If ``size`` or ``channels`` is below 1, or ``num_test`` leaves no training image.

    Examples
    --------
    >>> (x_train, y_train), (x_test, y_test) = digits(size=32, channels=3)
    >>> x_train.shape, x_test.shape
    ((1297, 32, 32, 3), (500, 32, 32, 3))
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "`digits` reads images that come with scikit-learn, which could not be imported. "
            'Install it with: pip install "explaind_tf[experiments]"'
        ) from error

    if size < 1 or channels < 1:
        raise ValueError(
            "`size` (pixels per side) and `channels` must be at least 1. Received: "
            f"size={size}, channels={channels}."
        )
    bundle = load_digits()
    total = len(bundle.target)
    if not 0 <= num_test < total:
        raise ValueError(
            f"`num_test` must be between 0 and {total - 1}: of {total} images at least one must be "
            f"left for training. Received: num_test={num_test}."
        )
    x = (bundle.images / bundle.images.max()).astype(np.float32)[..., np.newaxis]
    y = bundle.target.astype(np.int32)
    if size != x.shape[1]:
        # Bilinear values are means of neighbours: only rounding can leave [0, 1].
        x = np.clip(tf.image.resize(x, (size, size), method="bilinear").numpy(), 0, 1)
    x = np.repeat(x, channels, axis=-1)
    order = np.random.default_rng(seed).permutation(total)
    test, train = order[:num_test], order[num_test:]
    return (x[train], y[train]), (x[test], y[test])
