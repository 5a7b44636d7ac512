"""The findings in sentences and tables."""

from collections.abc import Sequence

import numpy as np

from experiments.language import layers
from experiments.language.continuations import SAME, Account
from experiments.language.corpus_training import Settings
from experiments.language.depth import Depth
from experiments.language.layers import ATTENTION, COMPONENT, GROUPS, MLP
from experiments.results import Table


def question(settings: Settings, weights: int) -> str:
    """Return what was done, and why."""
    return (
        f"A decoder-only Transformer of {settings.blocks} blocks ({weights:,} weights) learns to predict the next byte of "
        f"the sources of Python's standard library: {settings.steps} steps of PathAdamW over {settings.batch} windows of "
        f"{settings.length} bytes, each seen once, recorded with keyframes every {settings.every} steps and saved as "
        f"checkpoints every {settings.save_every}. How much do attention and MLPs of each block raise the log-probability "
        "of held-out text, and when: are there the two phases that the paper finds in the pretraining of EuroLLM, MLPs of "
        "outer blocks first and attention of intermediate blocks later? Do sparse checkpoints tell the same as the "
        "recording? And which bytes of training text do continuations come from?"
    )


def tables(depth: Depth, accounts: Sequence[Account]) -> list[Table]:
    """Return the tables of the section."""
    return [_by_part(depth), _by_phase(depth), _by_distance(depth), _by_continuation(accounts)]


def conclusions(settings: Settings, depth: Depth, accounts: Sequence[Account]) -> list[str]:
    """Return the conclusions, a sentence each; all that depends on the run is computed from it."""
    return [
        _who_learned(depth),
        _outer_first(settings, depth),
        _attention_later(depth),
        _by_checkpoints(depth),
        _same_text(accounts),
        _spread_out(accounts),
        f"This is one run of a small model over {settings.steps * settings.batch * settings.length / 1e6:.1f} MB of text: "
        "what is seen or not seen here says nothing about models of billions of weights, trained for longer on other text.",
    ]


def _by_part(depth: Depth) -> Table:
    totals, absolute = depth.totals, depth.absolute
    rows = []
    kinds, absolute_kinds = layers.by_kind(totals), layers.by_kind(absolute)
    for kind, value in kinds.items():
        name = f"all {kind}" if kind in (ATTENTION, MLP) else kind
        rows.append((name, value, f"{absolute_kinds[kind]:.1%}"))
    for part in totals[COMPONENT].values:
        if part not in kinds:
            at = {COMPONENT: part}
            rows.append((part, float(totals.sel(at)), f"{float(absolute.sel(at)):.1%}"))
    return Table(
        "What each part of the model did to the mean log-probability of a byte of held-out text (nats a byte; the number is "
        "that of the block), and its share of the absolute influence on single windows in single steps",
        ("part", "nats a byte", "absolute share"),
        rows,
    )


def _by_phase(depth: Depth) -> Table:
    rows = []
    for group in GROUPS:
        cells = [
            [f"{phases.share[stage][group]:.1%}" for stage in layers.STAGES] + [f"{phases.growth[group]:.2f}"]
            for phases in (depth.recorded, depth.sparse)
        ]
        rows.append((group, *cells[0], *cells[1]))
    columns = (*layers.STAGES, "late/middle")
    return Table(
        "Share of one block's MLP or attention in the absolute influence on held-out windows, in the stages of learning: "
        f"until half of the rise was made ({_steps(depth.stages['early'])}), until nine tenths "
        f"({_steps(depth.stages['middle'])}), and after that. Outer blocks are the first and the last",
        (
            "of one block",
            *(f"{column}, {how}" for how in ("recorded", "checkpoints") for column in columns),
        ),
        rows,
    )


def _steps(steps: range) -> str:
    return f"steps {steps.start + 1} to {steps.stop}"


def _by_distance(depth: Depth) -> Table:
    rows = [
        (
            each.every,
            each.entries,
            each.correlation,
            f"{each.relative_difference:.1%}",
            f"{each.mean_relative_difference:.1%}",
            each.attention,
            each.mlp,
        )
        for each in depth.agreement
    ]
    kinds = layers.by_kind(depth.totals)
    rows.append(("recorded", "", "", "", "", kinds[ATTENTION], kinds[MLP]))
    return Table(
        "Influences from checkpoints against those of the recording, summed over the same steps: of each part on each "
        "window in each interval, and of each part in the whole training (mean over windows); what each gives for all "
        "attention and all MLPs, in nats a byte",
        (
            "steps between checkpoints",
            "entries",
            "correlation",
            "difference",
            "difference of totals",
            "attention",
            "MLP",
        ),
        rows,
    )


def _by_continuation(accounts: Sequence[Account]) -> Table:
    rows = [
        (
            f"`{each.continuation.title}`",
            f"{np.exp(each.initial):.1e}",
            f"{np.exp(each.final):.2g}",
            each.data,
            each.pushed,
            each.pulled,
            f"{each.same_tokens:.2%}",
            f"{each.same_influence:.1%}",
            "–" if each.lift is None else f"{each.lift:.0f}",
            f"{each.top_windows_influence:.1%}",
        )
        for each in accounts
    ]
    return Table(
        "Continuations (after the bar): probability before and after training; influence of all training text in nats, and "
        f"of the bytes that raised and lowered it; share of the bytes that follow the same {SAME - 1} bytes, their share of "
        "the net influence, and the ratio of the two; share of the strongest hundredth of the windows. Shares of it may "
        "exceed 100 %: what others lowered is taken off it",
        (
            "continuation",
            "before",
            "after",
            "influence",
            "raised",
            "lowered",
            "same text",
            "its influence",
            "ratio",
            "top 1 % of windows",
        ),
        rows,
    )


def _who_learned(depth: Depth) -> str:
    kinds = layers.by_kind(depth.totals)
    ranked = sorted(kinds, key=kinds.__getitem__, reverse=True)
    parts = ", ".join(f"{kind} {kinds[kind]:+.2f}" for kind in ranked)
    return (
        f"The log-probability of a held-out byte rose from {depth.initial:.2f} to {depth.final:.2f} nats. By part of the "
        f"model: {parts}; weight decay did {depth.causes['weight_decay']:+.3f} of it. The ledger balances to "
        f"{depth.residual:.1e} of the movement, with causal attention and keyframes as well."
    )


def _outer_first(settings: Settings, depth: Depth) -> str:
    phases = depth.recorded
    early = phases.share["early"]
    seen = "is seen" if phases.early_leader == "outer MLP" else "is not seen"
    last = depth.stages["early"].stop
    caution = (
        " These steps are few, and within the warm-up of the learning rate."
        if last <= settings.warmup
        else ""
    )
    return (
        f'"MLPs of outer blocks first" {seen}: while the first half of the rise was made '
        f"({_steps(depth.stages['early'])}), an outer MLP had {early['outer MLP']:.1%} of the absolute influence, an inner "
        f"MLP {early['inner MLP']:.1%}, an outer attention {early['outer attention']:.1%} and an inner one "
        f"{early['inner attention']:.1%}.{caution}"
    )


def _attention_later(depth: Depth) -> str:
    phases = depth.recorded
    group = "inner attention"
    seen = "is seen" if phases.growth[group] > 1 else "is not seen"
    early, middle, late = (phases.share[stage] for stage in layers.STAGES)
    leader = max(late, key=late.__getitem__)
    return (
        f'"Then attention of intermediate blocks", a share that grows, {seen} after the middle: of the absolute influence a '
        f"block of them had {early[group]:.1%} early, {middle[group]:.1%} in the middle and {late[group]:.1%} late. That is "
        f"{phases.growth[group]:.2f} times its middle share (the largest growth of the four is that of {phases.grower}) and "
        f"{late[group] / early[group]:.2f} times its early one; late, too, the largest share is that of a block's {leader}, "
        f"with {late[leader]:.1%}."
    )


def _by_checkpoints(depth: Depth) -> str:
    closest, furthest = depth.agreement[0], depth.agreement[-1]
    verdicts = [
        (each.early_leader, each.growth["inner attention"] > 1) for each in (depth.recorded, depth.sparse)
    ]
    same = "the same" if verdicts[0] == verdicts[1] else "other"
    return (
        f"Checkpoints every {closest.every} steps give the influences of the recording with a correlation of "
        f"{closest.correlation:.3f} and a difference of {closest.relative_difference:.1%}, every {furthest.every} steps "
        f"of {furthest.correlation:.3f} and {furthest.relative_difference:.1%}, although all of these ledgers balance; "
        f"about the two phases the closest ones lead to {same} conclusions."
    )


def _same_text(accounts: Sequence[Account]) -> str:
    tokens = np.mean([each.same_tokens for each in accounts])
    same = np.mean([each.data * each.same_influence for each in accounts])
    target = np.mean([each.data * each.same_target_influence for each in accounts])
    net = np.mean([each.data for each in accounts])
    return (
        f"Predicting the same byte anywhere in the training text did {target:+,.0f} nats to a continuation (mean), "
        f"and predicting any other byte {net - target:+,.0f}; the {tokens:.2%} of the "
        f"training bytes at which the text is the same ({SAME} bytes) did {same:+,.0f}, against {net:+.1f} net of all."
    )


def _spread_out(accounts: Sequence[Account]) -> str:
    pushed, pulled, net, top = (
        np.mean(values)
        for values in (
            [each.pushed for each in accounts],
            [each.pulled for each in accounts],
            [each.data for each in accounts],
            [each.data * each.top_windows_influence for each in accounts],
        )
    )
    return (
        f"What a continuation gained is a difference of much larger influences: single bytes raised it by {pushed:,.0f} "
        f"nats and lowered it by {-pulled:,.0f}, {net:.1f} net (means), and the strongest hundredth of the windows alone "
        f"did {top:+,.0f}. The windows at the top are examples of what raised a continuation; they are no share of it."
    )
