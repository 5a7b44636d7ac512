"""Rows for all optimizers and their options, clipping and gradient accumulation."""

from collections.abc import Iterator
from typing import Any

import keras

from tests.contract.rows.arrays import TOKENS, Y
from tests.contract.rows.row import ALL, Row, options_of
from tests.contract.rows.small_models import dense, over

layers = keras.layers


def adamw() -> Iterator[Row]:
    """AdamW: constants, and which weights decay."""
    constants = {
        "defaults": {},
        "amsgrad": {"amsgrad": True},
        "other constants": {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3},
        "loss_scale_factor": {"loss_scale_factor": 8.0},
    }
    for name, options in constants.items():
        yield Row("optimizers", f"PathAdamW, {name}", dense, options=options_of(0.05, **options))
    no_decay = options_of(0.05, weight_decay=0.0)
    yield Row("optimizers", "PathAdamW, weight_decay=0 (Adam)", dense, options=no_decay, terms=frozenset())
    excluded = {"prepare": lambda model: model.optimizer.exclude_from_weight_decay(var_names=["bias"])}
    yield Row("optimizers", "PathAdamW, exclude_from_weight_decay", dense, **excluded)


def sgd() -> Iterator[Row]:
    """SGD: momentum and decay."""
    constants = {
        "plain": {},
        "momentum": {"momentum": 0.9},
        "Nesterov": {"momentum": 0.9, "nesterov": True},
        "decoupled decay": {"momentum": 0.5, "weight_decay": 0.1},
    }
    for name, options in constants.items():
        terms = ALL if "weight_decay" in options else frozenset()
        yield Row(
            "optimizers",
            f"PathSGD, {name}",
            dense,
            optimizer="SGD",
            options=options_of(0.05, **options),
            terms=terms,
        )


def others() -> Iterator[Row]:
    """The other optimizers, with decay and the options that change their law."""
    clip, accumulate = {"clipvalue": 0.05}, {"gradient_accumulation_steps": 2}
    cases: list[tuple[str, str, float, dict[str, Any]]] = [
        ("Adam", "defaults", 0.05, {}),
        ("Adam", "amsgrad", 0.05, {"amsgrad": True}),
        ("Adagrad", "defaults", 0.05, {}),
        ("Adagrad", "gradient accumulation, clipvalue", 0.05, clip | accumulate),
        ("RMSprop", "defaults", 0.05, {}),
        ("RMSprop", "momentum", 0.05, {"momentum": 0.9}),
        ("RMSprop", "centered", 0.05, {"centered": True}),
        (
            "RMSprop",
            "centered with momentum, clipnorm",
            0.05,
            {"centered": True, "momentum": 0.9, "clipnorm": 0.05},
        ),
        (
            "RMSprop",
            "momentum, gradient accumulation, clipvalue",
            0.05,
            {"momentum": 0.9} | clip | accumulate,
        ),
        ("Nadam", "defaults", 0.05, {}),
        ("Nadam", "gradient accumulation, clipvalue", 0.05, clip | accumulate),
        ("Adamax", "defaults", 0.05, {}),
        ("Adadelta", "defaults", 2.0, {}),
        ("Adadelta", "clipnorm", 2.0, {"clipnorm": 0.05}),
        ("Lion", "defaults", 0.05, {}),
        ("Lion", "gradient accumulation, clipvalue", 0.05, clip | accumulate),
        ("Adafactor", "defaults", 0.05, {}),
        ("Adafactor", "gradient accumulation, clipvalue", 0.05, clip | accumulate),
        ("Adafactor", "clipnorm", 0.05, {"clipnorm": 0.05}),
    ]
    for optimizer, name, rate, options in cases:
        decayed = {"weight_decay": 0.005 / rate} | options
        yield Row(
            "optimizers",
            f"Path{optimizer}, {name}",
            dense,
            optimizer=optimizer,
            options=options_of(rate, **decayed),
        )
    table = {
        "model": lambda: over((4,), layers.Embedding(5, 2), dtype="int32"),
        "arrays": lambda: (TOKENS, Y),
    }
    for optimizer in ("Adagrad", "RMSprop", "Nadam", "Adamax", "Adadelta", "Lion", "Adafactor"):
        options = options_of(0.05, weight_decay=0.1)
        yield Row(
            "optimizers", f"Path{optimizer}, sparse gradients", **table, optimizer=optimizer, options=options
        )


def clipping() -> Iterator[Row]:
    """Every kind of clipping, with both optimizers and with sparse gradients."""
    embedding = {
        "model": lambda: over((4,), layers.Embedding(5, 2), dtype="int32"),
        "arrays": lambda: (TOKENS, Y),
    }
    for option, value in {"clipnorm": 0.05, "global_clipnorm": 0.05, "clipvalue": 0.02}.items():
        clip = {option: value}
        yield Row("clipping", f"PathAdamW, {option}", dense, options=options_of(0.05, **clip))
        nesterov = options_of(0.1, momentum=0.9, nesterov=True, **clip)
        yield Row(
            "clipping", f"PathSGD, {option}", dense, optimizer="SGD", options=nesterov, terms=frozenset()
        )
        if option != "clipvalue":  # Keras clips each slice separately, which is refused: see tests/recording
            yield Row(
                "clipping", f"{option} of sparse gradients", **embedding, options=options_of(0.05, **clip)
            )


def accumulation() -> Iterator[Row]:
    """Gradients of several batches accumulated for one step."""
    accumulate = {"gradient_accumulation_steps": 2}
    yield Row("batches", "gradient accumulation, PathAdamW", dense, options=options_of(0.05, **accumulate))
    heavy = options_of(0.05, momentum=0.9, clipvalue=0.05, **accumulate)
    yield Row(
        "batches",
        "gradient accumulation, PathSGD, clipvalue",
        dense,
        optimizer="SGD",
        options=heavy,
        terms=frozenset(),
    )
