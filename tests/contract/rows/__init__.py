"""The rows of the contract: each is one thing that Keras users do in training, as small as possible.

A row says how to train, which entries of the ledger it must fill besides ``data``, and how exactly the ledger must balance.
Or it says that the training is refused, and with which words.
"""

from tests.contract.rows.change_rows import changed_by_others
from tests.contract.rows.execution_rows import continuation, precision_and_devices
from tests.contract.rows.loss_rows import (
    alignment_losses,
    keras_losses,
    own_and_several,
    reductions,
    token_losses,
)
from tests.contract.rows.model_rows import kinds_of_layers, models
from tests.contract.rows.optimizer_rows import accumulation, adamw, clipping, others, sgd
from tests.contract.rows.replica_rows import replicas
from tests.contract.rows.row import Row, optimizer_class
from tests.contract.rows.state_rows import regularisation_and_state
from tests.contract.rows.step_rows import batches, learning_rates

__all__ = ["ROWS", "Row", "optimizer_class"]

# docs/contract.md lists families in the order in which they first appear here.
ROWS: tuple[Row, ...] = tuple(
    row
    for rows in (
        adamw,
        sgd,
        others,
        clipping,
        accumulation,
        learning_rates,
        batches,
        keras_losses,
        reductions,
        own_and_several,
        token_losses,
        alignment_losses,
        regularisation_and_state,
        models,
        kinds_of_layers,
        changed_by_others,
        precision_and_devices,
        replicas,
        continuation,
    )
    for row in rows()
)
