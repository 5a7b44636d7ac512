"""Fixtures: one training, saved in every supported form, and a series of its checkpoints."""

import keras
import pytest
import tensorflow as tf

from tests.checkpoints.saving import Saver, build, open_form, save_like_keras_2, train


@pytest.fixture(name="saved", scope="package")
def _saved(tmp_path_factory):
    """Return (directory, predictions after each epoch): the same training in every supported form."""
    directory = tmp_path_factory.mktemp("checkpoints")
    tracker = []

    def save(model, epoch):
        if not tracker:
            checkpoint = tf.train.Checkpoint(net=model, optimizer=model.optimizer)
            tracker.append(tf.train.CheckpointManager(checkpoint, directory / "tf", max_to_keep=None))
        tracker[0].save()
        tf.train.Checkpoint(model).write(str(directory / f"root-{epoch}"))
        tf.saved_model.save(model, directory / f"saved-{epoch}")
        model.export(directory / f"export-{epoch}", verbose=False)
        model.save(directory / f"legacy-{epoch}.h5")
        save_like_keras_2(model, directory / f"keras2-{epoch}")

    watch = Saver(save)
    weights = str(directory / "w-{epoch}.weights.h5")
    whole = str(directory / "m-{epoch:02d}.keras")
    train(
        build(),
        keras.callbacks.ModelCheckpoint(weights, save_weights_only=True),
        keras.callbacks.ModelCheckpoint(whole),
        watch,
    )
    return directory, watch.predictions


@pytest.fixture(name="run", scope="package")
def _run(saved):
    return open_form(saved)
