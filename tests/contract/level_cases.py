"""Trainings of one's own, and the level at which each is recorded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

import explaind_tf as xtf
from tests.helpers import CLASSES, FEATURES, LABELS, X

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def layers() -> list[Any]:
    return [keras.Input((FEATURES,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(CLASSES)]


class Clipped(keras.Sequential):
    """Clips the gradient itself, before the optimizer sees it."""

    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, self.trainable_variables), 0.1)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


class Bounded(keras.Sequential):
    """Keeps its weights within bounds, as the critic of a Wasserstein GAN."""

    def train_step(self, data: Any) -> Any:
        logs = super().train_step(data)
        for variable in self.trainable_variables:
            variable.assign(tf.clip_by_value(variable, -0.3, 0.3))
        return logs


class WarmedUp(keras.Sequential):
    """Sets the learning rate of each step."""

    def train_step(self, data: Any) -> Any:
        share = tf.minimum(1.0, tf.cast(self.optimizer.iterations + 1, tf.float32) / 4)
        self.optimizer.learning_rate.assign(0.02 * share)
        return super().train_step(data)


class Autoencoder(keras.Model):
    """A variational autoencoder. Its call() reconstructs the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = keras.layers.Dense(4), keras.layers.Dense(FEATURES)
        self.seeds = keras.random.SeedGenerator(3)

    def call(self, x: Any) -> Any:
        return self.decoder(self.encoder(x)[:, :2])

    def train_step(self, x: Any) -> Any:
        with tf.GradientTape() as tape:
            mean, log_variance = tf.split(self.encoder(x), 2, axis=1)
            noise = keras.random.normal(tf.shape(mean), seed=self.seeds)
            made = self.decoder(mean + tf.exp(0.5 * log_variance) * noise)
            divergence = tf.exp(log_variance) + mean**2 - 1 - log_variance
            loss = tf.reduce_mean((made - x) ** 2) + 0.05 * tf.reduce_mean(divergence)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


class Distiller(keras.Model):
    """A student that learns from labels and from a frozen teacher."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher, self.student = keras.Sequential(layers()), keras.Sequential(layers())
        self.teacher.trainable = False

    def call(self, x: Any) -> Any:
        return self.student(x)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None
    ) -> Any:
        of_labels = super().compute_loss(x, y, y_pred, sample_weight)
        return of_labels + tf.reduce_mean((self.teacher(x) - y_pred) ** 2)


class Contrastive(keras.Model):
    """Tells two views of a sample from views of the other samples of the batch, as SimCLR does."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = keras.Sequential(layers())

    def call(self, x: Any) -> Any:
        return self.encoder(x)

    def train_step(self, x: Any) -> Any:
        with tf.GradientTape() as tape:
            views = [tf.math.l2_normalize(self.encoder(x + shift), 1) for shift in (0.1, -0.1)]
            logits = tf.matmul(*views, transpose_b=True)
            labels = tf.range(tf.shape(x)[0])
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": tf.reduce_mean(loss)}


class Adversaries(keras.Model):
    """A GAN with two optimizers and no call()."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = keras.Sequential([keras.Input((2,)), keras.layers.Dense(FEATURES)])
        self.critic = keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(1)])
        self.seeds = keras.random.SeedGenerator(3)

    def compile(self, optimizers: Any) -> None:
        super().compile()
        self.optimizers = optimizers

    def train_step(self, real: Any) -> Any:
        noise = keras.random.normal((tf.shape(real)[0], 2), seed=self.seeds)
        sides = (self.critic, -1.0), (self.generator, 1.0)
        for optimizer, (trained, sign) in zip(self.optimizers, sides, strict=True):
            with tf.GradientTape() as tape:
                margin = tf.reduce_mean(self.critic(real)) - tf.reduce_mean(
                    self.critic(self.generator(noise))
                )
                loss = sign * tf.tanh(margin)
            weights = trained.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


class AddsLoss(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        self.add_loss(tf.reduce_mean(x**2))
        return x


class Annealed(keras.layers.Layer):
    """Has the weight of its loss in a variable that Keras does not track, and a metric."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.metric = tf.Variable(0.1, trainable=False), keras.metrics.Mean()

    def call(self, x: Any) -> Any:
        self.metric.update_state(x)
        self.add_loss(self.weight * tf.reduce_mean(x**2))
        return x


def functional(layer: keras.layers.Layer) -> keras.Model:
    inputs = keras.Input((FEATURES,))
    return keras.Model(inputs, layer(keras.layers.Dense(CLASSES)(inputs)))


@dataclass(frozen=True)
class Case:
    """A training, and the highest level at which it can be recorded."""

    level: str
    model: Callable[[], keras.Model]
    optimizer: Callable[[], Any] = lambda: xtf.PathAdamW(0.02, weight_decay=0.1)
    loss: Any = CROSSENTROPY
    data: tuple[Any, ...] = (X, LABELS)
    says: str = ""
    part: str | None = None
    unexplained: int = 0


NOT_THE_GRADIENT = "first step was replayed.*gradient is not the one"
NO_LOSS = "compiled without a loss"
CASES = {
    "learning rate set in train_step": Case("sample", lambda: WarmedUp(layers())),
    "weights set in train_step": Case("sample", lambda: Bounded(layers()), unexplained=6),
    "gradients clipped in train_step": Case("cause", lambda: Clipped(layers()), says=NOT_THE_GRADIENT),
    "gradients clipped, SGD without momentum": Case(
        "cause", lambda: Clipped(layers()), lambda: xtf.PathSGD(0.1, weight_decay=0.1), says=NOT_THE_GRADIENT
    ),
    "variational autoencoder": Case("cause", Autoencoder, loss=None, data=(X,), says=NO_LOSS),
    "distillation": Case("cause", Distiller, says=NOT_THE_GRADIENT),
    "contrastive loss": Case("cause", Contrastive, loss=None, data=(X,), says=NO_LOSS),
    "add_loss alone": Case("cause", lambda: functional(AddsLoss()), loss=None, data=(X,), says=NO_LOSS),
    "weight of a loss in a tf.Variable": Case(
        "cause", lambda: functional(Annealed()), says=r"reads 1 variable.*self\.add_weight\("
    ),
    "any optimizer of Keras": Case(
        "path",
        lambda: keras.Sequential(layers()),
        lambda: keras.optimizers.Lion(0.01),
        says="compiled with keras.*Lion",
    ),
    "an optimizer by name": Case(
        "path",
        lambda: keras.Sequential(layers()),
        lambda: "adamw",
        says=r"compiled with keras.*AdamW.*PathAdamW\(",
    ),
    "GAN": Case(
        "path",
        Adversaries,
        lambda: [keras.optimizers.Adam(0.02), keras.optimizers.RMSprop(0.02)],
        data=(X,),
        part="generator",
        says="Only a part of the fitted model",
    ),
}
