"""Integer operators of onnxruntime outside the ONNX standard, as its `com.microsoft` domain names them."""

from __future__ import annotations

from qir.ops import Attribute, OpDef, declare

DOMAIN = "com.microsoft"

_Q = ("scale", "zero_point")


def _quantized(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}{part}" for name in names for part in ("", *(f"_{q}" for q in _Q)))


_POOL = {
    "kernel_shape": Attribute("INTS", required=True), "strides": Attribute("INTS"), "pads": Attribute("INTS"),
    "ceil_mode": Attribute("INT", 0), "count_include_pad": Attribute("INT", 0),
    "auto_pad": Attribute("STRING", "NOTSET"),
}  # fmt: skip
_Y = ("y_scale", "y_zero_point")

for _op in ("QLinearAdd", "QLinearMul"):
    declare(OpDef(f"{DOMAIN}.{_op}", (*_quantized("a", "b"), *_Y), 7, 8))
declare(
    OpDef(
        f"{DOMAIN}.QGemm", (*_quantized("a", "b"), "c", *_Y), 6, 9,
        attributes={"transA": Attribute("INT", 0), "transB": Attribute("INT", 0), "alpha": Attribute("FLOAT", 1.0)},
        doc="Without y_scale the result is float32.",
    )
)  # fmt: skip
declare(
    OpDef(
        f"{DOMAIN}.MatMulIntegerToFloat",
        ("a", "b", "a_scale", "b_scale", "a_zero_point", "b_zero_point", "bias"), 4, 7,
    )
)  # fmt: skip
declare(OpDef(f"{DOMAIN}.QLinearAveragePool", (*_quantized("x"), *_Y), 4, 5, attributes=_POOL))
declare(
    OpDef(
        f"{DOMAIN}.QLinearGlobalAveragePool", (*_quantized("x"), *_Y), 5, 5,
        attributes={"channels_last": Attribute("INT", 0)},
    )
)  # fmt: skip
declare(
    OpDef(f"{DOMAIN}.QLinearConcat", (*_Y, "inputs"), 5, None, attributes={"axis": Attribute("INT", required=True)})
)
declare(OpDef(f"{DOMAIN}.QLinearSigmoid", (*_quantized("x"), *_Y), 4, 5))
declare(
    OpDef(
        f"{DOMAIN}.QLinearLeakyRelu", (*_quantized("x"), *_Y), 4, 5, attributes={"alpha": Attribute("FLOAT", 0.01)}
    )
)  # fmt: skip
declare(
    OpDef(
        f"{DOMAIN}.QLinearSoftmax", (*_quantized("x"), *_Y), 5, 5,
        attributes={"axis": Attribute("INT", -1), "opset": Attribute("INT", required=True)},
    )
)  # fmt: skip
