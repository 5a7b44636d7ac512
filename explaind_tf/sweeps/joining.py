"""Joins the segments of a reverse sweep by what leaves each of them, so that none takes the passes of another.

The rows Ψ_i = memory · Ψ_{i+1} + Φ_i ⊙ pull_i are affine in what comes from later updates. Let a segment of L updates begin
with 0, and let Ψ′ be what it ends with. If it begins with Ψ″ instead, it ends with Ψ′ + memory^L · Ψ″. So each segment first
computes its Ψ′ on its own (:func:`rows_ahead`), then they are joined from the last one back (:func:`enter`), and then each
takes the passes over its batches. The rows Φ that it needed for its Ψ′ are kept for this, as far as memory allows.
"""

from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from explaind_tf.kernel.use_rows import LaterRows, RowsByUse, UpdateRows
from explaind_tf.replay.path_replay import ReplayedStep
from explaind_tf.sweeps.path_sweep import Integrated
from explaind_tf.sweeps.routes import Routes
from explaind_tf.sweeps.rows import path_rows
from explaind_tf.sweeps.segments import Segment, Updates, remembered_updates
from explaind_tf.sweeps.task import Piece, Task

# Share of the memory limit for rows Φ that are kept.
_KEPT_SHARE = 1 / 4

# Rows Φ of pieces, shape (inputs · O, Z), by step and by the piece's first input.
KeptRows = dict[tuple[int, int], np.ndarray]


@dataclass(frozen=True)
class Leaving:
    """What leaves a segment that began with nothing.

    Attributes
    ----------
    psi : list of np.ndarray
        Ψ′ of each batch of pieces, shape (F, D); empty if the segment has no step that is accounted for.
    share : float
        The share of what enters the segment that its updates leave in Ψ.
    left : float
        As in ``LaterRows``: the same share of the updates that are not accounted for.
    """

    psi: list[np.ndarray]
    share: float
    left: float


@dataclass(frozen=True)
class Later:
    """What enters a segment from all later steps: of each batch of pieces the rows Ψ, and what is left of them."""

    psi: list[np.ndarray]
    left: float


@dataclass(frozen=True)
class Ahead:
    """What a segment finds before it takes a pass over a batch."""

    leaving: Leaving
    rows: KeptRows


@dataclass(frozen=True)
class Joined:
    """What is known when a segment takes the passes over its batches.

    Attributes
    ----------
    later : Later or None
        What enters it; None if nothing does.
    rows : dict
        Some of its rows Φ.
    """

    later: Later | None = None
    rows: KeptRows = field(default_factory=dict)

    def later_of(self, batch: int) -> LaterRows | None:
        """Return what enters for a batch of pieces."""
        if self.later is None:
            return None
        return LaterRows(tf.constant(self.later.psi[batch]), self.later.left)

    def rows_of(self, step: int, piece: Piece) -> tf.Tensor | None:
        """Return the rows Φ of a piece in a step, if they were kept."""
        rows = self.rows.get((step, piece.rows.start))
        return None if rows is None else tf.constant(rows)


NOTHING_KNOWN = Joined()


def rows_ahead(task: Task, routes: Routes, found: Integrated, segment: Segment) -> Ahead:
    """Return what leaves a segment, and the rows Φ that this took.

    Parameters
    ----------
    task, routes, found
        As for the reverse sweep.
    segment : Segment
        The segment.
    """
    updates, question = Updates(task), task.question
    rows: KeptRows = {}
    psi, room = [], task.memory_limit * _KEPT_SHARE
    # What is further from the segment's first step leaves nothing.
    stop = min(segment.stop, updates.beyond(segment.first, remembered_updates(task)))
    for pieces in task.batches_of_pieces:
        window = RowsByUse(task.memory, forgets=task.recorded.law.forgets)
        for number in range(stop - 1, max(segment.first, question.first) - 1, -1):
            step = task.replay.step(number)
            if not step.transition.updates:
                continue
            own = {(number, piece.rows.start): rows_of(task, routes, found, step, piece) for piece in pieces}
            phi = tf.concat(list(own.values()), axis=0)[:, : task.derivatives.model.theta_size]
            window.take(UpdateRows(number, phi, task.recorded.update(step)))
            room -= sum(one.numpy().nbytes for one in own.values())
            if room >= 0:
                rows |= {key: one.numpy() for key, one in own.items()}
        if window.leaving is not None:
            psi.append(window.leaving.psi.numpy())
    border = min(max(segment.first, question.first), segment.stop)
    accounted, early = updates.between(border, segment.stop), updates.between(segment.first, border)
    return Ahead(Leaving(psi, task.memory**accounted, task.memory**early), rows)


def enter(leaving: Leaving, later: Later | None) -> Later | None:
    """Return what enters the segment before one that ``later`` enters, and of which ``leaving`` is known."""
    if later is None:
        return Later(leaving.psi, leaving.left) if leaving.psi else None
    if not leaving.psi:
        return Later(later.psi, later.left * leaving.left)
    share = leaving.share * later.left
    psi = [own + its * own.dtype.type(share) for own, its in zip(leaving.psi, later.psi, strict=True)]
    return Later(psi, leaving.left)


def rows_of(task: Task, routes: Routes, found: Integrated, step: ReplayedStep, piece: Piece) -> tf.Tensor:
    """Return the rows Φ of a piece in a step, with the nodes of the path sweep, shape (inputs · O, Z)."""
    quadrature = found.quadratures[step.number, piece.block]
    return path_rows(task, step.path, piece, quadrature, route=routes.rows)
