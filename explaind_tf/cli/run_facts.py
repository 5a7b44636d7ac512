"""What a run holds as plain data, read without TensorFlow."""

from dataclasses import asdict
from typing import Any

from explaind_tf import constants as names
from explaind_tf.cli.inputs import leaf_names
from explaind_tf.runs import RecordedRun
from explaind_tf.runs.estimate import Estimate, seconds_of
from explaind_tf.runs.format import structure as struct
from explaind_tf.runs.format.divergence import DIVERGED
from explaind_tf.runs.storage.files import total_bytes

Facts = dict[str, Any]


def run_facts(run: RecordedRun) -> Facts:
    """Return what a run holds and which axes it can be asked for."""
    manifest = run.manifest
    return {
        "run": run.run_dir,
        "run_id": run.run_id,
        "created": manifest.created,
        "status": manifest.status,
        "steps": len(run.steps),
        "every": manifest.every,
        "samples": len(run.samples.ids),
        "contents": len(run.samples),
        "weights": sum(variable.size for variable in run.variables),
        "variables": [asdict(variable) for variable in run.variables],
        "layers": list(run.layers),
        "optimizer": asdict(manifest.optimizer),
        "loss": manifest.loss,
        "inputs": _tensors(manifest.inputs, "x"),
        "targets": _tensors(manifest.targets, "y"),
        "outputs": _tensors(manifest.outputs, "output"),
        "level": run.level,
        "level_reason": run.manifest.level_reason,
        "axes": possible_axes(run),
        "bytes": total_bytes(run.run_dir),
        "diverged": None if manifest.divergence is None else asdict(manifest.divergence),
        "environment": {key: value for key, value in manifest.environment.items() if key != DIVERGED},
        "unlisted_operations": run.unlisted_operations,
    }


def _tensors(structure: struct.Structure, name: str) -> list[Facts]:
    pairs = zip(leaf_names(structure, name), struct.leaves(structure), strict=True)
    return [{"name": label, "dtype": leaf.dtype, "shape": [None, *leaf.shape]} for label, leaf in pairs]


def possible_axes(run: RecordedRun) -> list[str]:
    """Return the axes that the shell can ask the run for. Groups need labels of samples, which only Python can pass."""
    if not len(run.steps):
        return []
    return [
        axis for axis in run.axes if axis != names.GROUP and (axis != names.TOKEN or run.has_token_losses)
    ]


def estimate_facts(run: RecordedRun, estimate: Estimate, free: int | None) -> Facts:
    """Return the bytes and seconds that a longer run of a recorded training will take."""
    seconds = seconds_of(run)
    found: Facts = {
        "run": run.run_dir,
        "steps": estimate.steps,
        "every": estimate.every,
        "bytes": estimate.total,
        "bytes_per_step": estimate.per_step,
        "bytes_per_keyframe": estimate.keyframe,
        "bytes_of_samples": estimate.samples,
        "free_bytes": free,
        "share_of_free": None if free is None else estimate.total / max(free, 1),
        "fits": None if free is None else estimate.total <= free,
        "seconds_per_step": None,
        "attribution_seconds": None,
    }
    if seconds is not None:
        found["seconds_per_step"] = asdict(seconds)
        found["attribution_seconds"] = list(estimate.attribution_seconds(seconds))
    return found
