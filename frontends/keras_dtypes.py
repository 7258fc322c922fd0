"""The dtypes in which Keras computes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from qir.frontends.keras_lowerings import DTYPES, KerasBuilder, type_of_tensor
from qir.graph import Value
from qir.types import DTYPES as ONNX_DTYPES
from qir.types import ScalarType

KERAS_DTYPES = {short: name for name, short in DTYPES.items()}


def dtype_of(operand: Any) -> Any:
    """Keras's name of an operand's dtype; for Python numbers their type, None where it is not known."""
    if isinstance(operand, Value):
        if isinstance(operand.type, ScalarType):
            return {"int": int, "float": float, "bool": bool}[operand.type.kind]
        return KERAS_DTYPES.get(operand.type.dtype or "")
    if isinstance(operand, bool | int | float):
        return type(operand)
    return KERAS_DTYPES.get(type_of_tensor(operand).dtype or "") if hasattr(operand, "dtype") else None


def tensor(build: KerasBuilder, operand: Any) -> Value:
    """An operand as a value; lists become tensors of the dtype that Keras gives them."""
    if isinstance(operand, list | tuple):
        operand = np.asarray(keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(operand)))
    value = build.value(operand)
    assert value is not None
    return value


def cast(build: KerasBuilder, operand: Any, dtype: str) -> Value:
    """A tensor in this dtype of Keras's."""
    value = tensor(build, operand)
    if dtype_of(value) in (dtype, None):
        return value
    if isinstance(value.type, ScalarType) and value.weight is not None:
        return build.value(np.array(value.weight.data, dtype))  # type: ignore[return-value]
    return build("Cast", value, to=ONNX_DTYPES[DTYPES[dtype]])


def agreed(build: KerasBuilder, *operands: Any, also: tuple[Any, ...] = ()) -> list[Value]:
    """The operands in the dtype that Keras computes with them, and `also` beside them, in."""
    values = [tensor(build, operand) for operand in operands]
    dtypes = [dtype_of(value) for value in values]
    if None in dtypes:
        return values
    dtype = keras.backend.result_type(*dtypes, *also)
    return [value if isinstance(value.type, ScalarType) and not _loses(value, dtype) else cast(build, value, dtype)
            for value in values]  # fmt: skip


def _loses(value: Value, dtype: str) -> bool:
    """Whether a Python number says less than the dtype that it is to have: a float beside whole numbers."""
    return isinstance(value.type, ScalarType) and value.type.kind == "float" and not dtype.startswith(("float", "bf"))


def floating(build: KerasBuilder, x: Any) -> Value:
    """A tensor as floats."""
    value = tensor(build, x)
    dtype = dtype_of(value)
    whole = dtype in (int, bool) or (isinstance(dtype, str) and not dtype.startswith(("float", "bfloat", "complex")))
    return cast(build, value, keras.backend.result_type(dtype, float)) if whole else value
