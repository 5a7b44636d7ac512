"""The rule of each operation: a new one needs a class, and a line here."""

from collections.abc import Callable

from explaind_tf.kernel.operations.convolutions import Conv2D, OneByOne, transposed
from explaind_tf.kernel.operations.elementwise import Tile, any_slope, differences, multiplications, sums
from explaind_tf.kernel.operations.lookups import Gather
from explaind_tf.kernel.operations.matrix_products import Einsum, MatMul
from explaind_tf.kernel.operations.rule import Rule
from explaind_tf.kernel.operations.uses import NotCoveredError, Use

_RULES: dict[str, Callable[[Use], Rule]] = {
    "MatMul": MatMul,
    "BatchMatMulV2": MatMul,
    "Einsum": Einsum,
    "GatherV2": Gather,
    "Add": sums,
    "AddV2": sums,
    "BiasAdd": sums,
    "BroadcastTo": sums,
    "Sub": differences,
    "Mul": multiplications,
    "Tile": Tile,
    "RealDiv": any_slope,
    "Maximum": any_slope,
    "Minimum": any_slope,
    "Pow": any_slope,
    "SquaredDifference": any_slope,
    "SelectV2": any_slope,
    "Conv2D": Conv2D,
    "Conv3D": OneByOne,
    "DepthwiseConv2dNative": OneByOne,
    "Conv2DBackpropInput": transposed,
    "Conv3DBackpropInputV2": transposed,
}


def rule_of(use: Use) -> Rule:
    """Return the rule for a use.

    Raises
    ------
    NotCoveredError
        If there is none.
    """
    operation = use.operation
    is_covered = operation.type in _RULES and use.source.shape.is_fully_defined()
    if "_gradient_op_type" in operation.node_def.attr:
        raise NotCoveredError(
            f"{operation.name} ({operation.type}) has a custom gradient. Rules know TensorFlow's own gradients only."
        )
    if not is_covered or (operation.type == "BiasAdd" and operation.get_attr("data_format") != b"NHWC"):
        raise NotCoveredError(
            f"{operation.name} ({operation.type}) has no rule, or none for its data format or for weights of shape "
            f"{use.source.shape}."
        )
    return _RULES[operation.type](use)
