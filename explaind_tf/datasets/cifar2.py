"""Two classes of CIFAR-10, with the identity of each image."""

from pathlib import Path
from typing import Final

import tensorflow as tf
import tensorflow_datasets as tfds

# In the order of their labels. TFDS knows the names only once the data is prepared, and a
# misspelt class should be refused before a download.
CIFAR10_CLASSES: Final = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def cifar2(
    split: str = "train",
    *,
    classes: tuple[str, str] = ("cat", "dog"),
    batch_size: int | None = None,
    shuffle: bool = False,
    seed: int = 0,
    data_dir: str | Path | None = None,
    download: bool = True,
) -> tf.data.Dataset:
    """Return two classes of CIFAR-10 as a dataset of ``(tfds_id, (image, label))``.

    The result has a known cardinality. This function counts the images once (in seconds, without
    decoding them) and asserts the count. A filter would leave the cardinality unknown. In a
    graph-mode ``fit`` without ``steps_per_epoch``, Keras then ends each epoch with one more training
    step on no data. That step has no gradient, but the iteration count goes up and the weights
    decay once more. A ledger cannot assign such a step to a sample. The asserted count is right for
    ``fit`` on this dataset. After another filter, assert it again with
    ``tf.data.experimental.assert_cardinality``.

    Parameters
    ----------
    split : str, default "train"
        A TFDS split: "train", "test", or a slice such as "train[:10%]". Slices are taken from all
        ten classes, before the two are picked.
    classes : tuple of str, default ("cat", "dog")
        The class with label 0 and the class with label 1, by their CIFAR-10 names.
    batch_size : int, optional
        Images in a batch; the last batch holds the rest. By default the dataset is not batched.
    shuffle : bool, default False
        Shuffle all images anew in each epoch. Otherwise they come in the order of the files.
    seed : int, default 0
        Seed of the shuffle.
    data_dir : str or pathlib.Path, optional
        Where TFDS keeps its data; by default ``~/tensorflow_datasets``.
    download : bool, default True
        Download and prepare CIFAR-10 (170 MB) if ``data_dir`` does not hold it.

    Returns
    -------
    tf.data.Dataset
        A dataset of known cardinality: 10,000 images for "train" and 2,000 for "test". Elements are
        ``(tfds_id, (image, label))``: a string that names the image in TFDS, a float32 in [0, 1]
        of shape (32, 32, 3) and an int32 of shape (). Each has a leading batch axis if
        ``batch_size`` is given.

    Raises
    ------
    ValueError
        If ``classes`` are not two different CIFAR-10 classes, ``batch_size`` is below 1, or the
        split holds no image of them.
    FileNotFoundError
        If ``download`` is False and ``data_dir`` does not hold CIFAR-10.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}.")
    class_ids = _class_ids(classes)
    builder = tfds.builder("cifar10", data_dir=data_dir)
    if download:
        builder.download_and_prepare()
    try:
        dataset = builder.as_dataset(
            split=split,
            # The images of the eight other classes are dropped without decoding them.
            decoders={"image": tfds.decode.SkipDecoding()},
            # TFDS would keep all ten classes in memory; the cache below keeps only two.
            read_config=tfds.ReadConfig(add_tfds_id=True, try_autocache=False),
        )
    except AssertionError as error:
        # TFDS asserts that the data is there.
        raise FileNotFoundError(
            f"TFDS found no CIFAR-10 in {builder.data_dir}. Received: download={download}. Pass the "
            "`data_dir` that holds it, or download=True."
        ) from error

    dataset = dataset.filter(lambda element: tf.reduce_any(element["label"] == class_ids))
    count = int(dataset.reduce(tf.constant(0, tf.int64), lambda n, _: n + 1))
    if count == 0:
        raise ValueError(
            f"split={split!r} of CIFAR-10 holds no image of classes={classes}. Pass a larger split, for "
            "example split='train'."
        )
    # Later epochs read from the cache, which holds encoded images of about 2 KB.
    dataset = dataset.cache().apply(tf.data.experimental.assert_cardinality(count))
    if shuffle:
        # Also before decoding, since the buffer holds all images.
        dataset = dataset.shuffle(count, seed=seed)

    decode = builder.info.features["image"].decode_example

    def to_pair(
        element: dict[str, tf.Tensor],
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, tf.Tensor]]:
        image = tf.image.convert_image_dtype(decode(element["image"]), tf.float32)
        label = tf.cast(element["label"] == class_ids[1], tf.int32)
        return element["tfds_id"], (image, label)

    dataset = dataset.map(to_pair, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset if batch_size is None else dataset.batch(batch_size)


def _class_ids(classes: tuple[str, str]) -> list[int]:
    """Return the CIFAR-10 labels of the two classes."""
    known = set(CIFAR10_CLASSES)
    if isinstance(classes, str) or len(classes) != 2 or len(known.intersection(classes)) != 2:
        raise ValueError(
            "`classes` must be two different classes of CIFAR-10, out of "
            f"{', '.join(CIFAR10_CLASSES)}. Received: classes={classes!r}."
        )
    return [CIFAR10_CLASSES.index(name) for name in classes]
