"""The description of variables in a manifest."""

from typing import Any

from explaind_tf.runs.format.description import VariableSpec


def variable_specs(variables: list[Any], decayed: list[bool] | None = None) -> tuple[VariableSpec, ...]:
    """Return path, shape and dtype of variables, and whether weight decay applies to them."""
    flags = decayed if decayed is not None else [False] * len(variables)
    taken: dict[str, int] = {}
    specs = []
    for variable, decay in zip(variables, flags, strict=True):
        # Two layers of the same name give two variables of the same path. Ledgers need distinct paths.
        count = taken[variable.path] = taken.get(variable.path, 0) + 1
        layer, name = variable.path.rsplit("/", 1) if "/" in variable.path else ("", variable.path)
        path = "/".join(part for part in (layer if count == 1 else f"{layer}~{count}", name) if part)
        specs.append(VariableSpec(path, tuple(variable.shape), variable.dtype, decay))
    return tuple(specs)
