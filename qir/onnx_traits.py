"""The traits of the standard ONNX operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qir.axis_orders.orders import (
    ALONG_AXIS,
    ALONG_OPERAND,
    CHOICE,
    GATHERING,
    JOINING,
    PADDING,
    REDUCTION,
    REPEATING,
    RESIZING,
    SLICING,
    SQUEEZING,
    UNSQUEEZING,
)
from qir.axis_orders.regrouping import REGROUPING
from qir.operators.einsum import einsum_parts, is_one_product
from qir.traits import (
    Blanks,
    Clamps,
    Commutes,
    Composed,
    CopiesData,
    Elementwise,
    IdentityInInference,
    KeepsGrid,
    LooksUp,
    MovesData,
    Permutes,
    Shapes,
    Stateful,
    TiesOperands,
    Trait,
    Unary,
    Weighted,
)

if TYPE_CHECKING:
    from qir.graph import Node


def _first_axis(node: Node) -> int | None:
    return 0


def _last_axis(node: Node) -> int | None:
    """MatMul's output channels: the last axis of a matrix, or none for a stack of vectors."""
    rank = node.operands[1].type.rank
    return rank - 1 if rank is not None and rank >= 2 else None


def _gemm_axis(node: Node) -> int | None:
    return 0 if node.attr("transB") else 1


def _transposed_axis(node: Node) -> int | None:
    """ConvTranspose's weight is [inputs, outputs / group, …]: with groups, one index reaches several outputs."""
    return 1 if node.attr("group") == 1 else None


def _feature_axis(node: Node) -> int | None:
    rank = node.operands[0].type.rank
    return None if rank is None or rank < 2 else rank - 1 if node.attr("axis") % rank != rank - 1 else rank - 2


def limits(node: Node, low: int, high: int) -> tuple[float | None, float | None] | None:
    """The limits that operands number `low` and `high` hold as literals; None when one of them is computed."""
    found = []
    for port in (low, high):
        value = node.operands[port] if port < len(node.operands) else None
        literal = None if value is None else value.literal
        if value is not None and not isinstance(literal, int | float):
            return None
        found.append(None if literal is None else float(literal))
    return found[0], found[1]


def _clip_range(node: Node) -> tuple[float | None, float | None] | None:
    return limits(node, 1, 2)


def _relu_range(node: Node) -> tuple[float | None, float | None] | None:
    return 0.0, None


def _permutation(node: Node) -> tuple[int, ...] | None:
    rank = node.operands[0].type.rank
    reverse = None if rank is None else tuple(reversed(range(rank)))
    return node.attrs.get("perm", reverse)


TRAITS: dict[str, tuple[Trait, ...]] = {
    "Conv": (Weighted(_first_axis),),
    "ConvTranspose": (Weighted(_transposed_axis),),
    "Gemm": (Weighted(_gemm_axis),),
    "MatMul": (Weighted(_last_axis, bias=None, stacks=True),),
    "Relu": (Unary(), Clamps(_relu_range)),
    "Clip": (Unary(), Clamps(_clip_range)),
    "Dropout": (Unary(), Stateful(), IdentityInInference()),
    "BatchNormalization": (Stateful(),),
    "Identity": (MovesData(), Unary()),
    "Trilu": (Blanks(),),
    "MaxPool": (KeepsGrid(),),
    "GlobalMaxPool": (KeepsGrid(),),
    "ReduceMax": (KeepsGrid(), REDUCTION),
    "ReduceMin": (KeepsGrid(), REDUCTION),
    "Concat": (TiesOperands(), JOINING),
    "Transpose": (Permutes(_permutation),),
    "Squeeze": (MovesData(), SQUEEZING),
    "Unsqueeze": (MovesData(), UNSQUEEZING),
    "Slice": (MovesData(), SLICING),
    "Split": (MovesData(), ALONG_AXIS),
    "Gather": (LooksUp(_feature_axis), GATHERING),
    "Expand": (MovesData(), REPEATING),
    "Tile": (CopiesData(), REPEATING),
    "Pad": (PADDING,),
    "Resize": (RESIZING,),
    "CumSum": (ALONG_OPERAND,),
    "Einsum": (Composed("einsum", einsum_parts, exact=is_one_product),),
    "Flatten": (MovesData(),),
    **dict.fromkeys(["GatherElements", "GatherND", "DepthToSpace", "SpaceToDepth"], (CopiesData(),)),
    "Reshape": (MovesData(), REGROUPING),
    **dict.fromkeys(["Softmax", "LogSoftmax", "Hardmax", "LpNormalization", "TopK"], (ALONG_AXIS,)),
    **dict.fromkeys(["ArgMax", "ArgMin"], (CHOICE,)),
    **dict.fromkeys(
        ["ReduceMean", "ReduceSum", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp",
         "ReduceSumSquare"],
        (REDUCTION,),
    ),
    **dict.fromkeys(["Shape", "Size", "Range", "ConstantOfShape", "NonZero"], (Shapes(),)),
    **dict.fromkeys(
        ["RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"],
        (Stateful(),),
    ),
    **dict.fromkeys(
        ["Add", "Mul", "Max", "Min", "Mean", "Sum", "And", "Or", "Xor", "Equal",
         "BitwiseAnd", "BitwiseOr", "BitwiseXor"],
        (Elementwise(), Commutes()),
    ),
    **dict.fromkeys(
        ["Sub", "Div", "Pow", "Mod", "PRelu", "Where", "BitShift", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"],
        (Elementwise(),),
    ),
    **dict.fromkeys(
        ["Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cast", "Ceil", "Celu", "Cos", "Cosh", "Elu",
         "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg",
         "Not", "BitwiseNot", "Reciprocal", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus",
         "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu"],
        (Unary(),),
    ),
}  # fmt: skip
"""By operator name. An operator without traits mixes its elements in a way that no grid survives."""
