"""Which opset a graph can be written in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from onnx import TensorProto, defs, helper

from qir.expansions import exists_at
from qir.graph import Node, Value
from qir.ops import VOCABULARY_OPSET
from qir.types import DTYPES, MapType, OptionalType, ScalarType, SequenceType, TensorType, Type, is_known

LOWEST = 21
"""The opset that is written unless an operator needs a newer one. Its 4- and 16-bit integers QDQ models need."""


CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")
"""The operators between float and integers."""


def fitting_opsets(nodes: Iterable[Node]) -> Iterator[int]:
    """The opsets from 21 on that have every standard operator among `nodes`, with these attributes and types.

    The last is the newest that the installed onnx knows, whose meaning the operators have.
    """
    standard = [node for node in nodes if "." not in node.op]
    yield from (opset for opset in range(LOWEST, VOCABULARY_OPSET) if all(accepts(node, opset) for node in standard))
    yield VOCABULARY_OPSET


def lowest_ir_version(opset: int) -> int:
    """The lowest IR version that a model of this opset may have."""
    return int(helper.find_min_ir_version_for([helper.make_opsetid("", opset)], ignore_unknown=True))


def accepts(node: Node, opset: int) -> bool:
    """Whether the standard operator is in `opset` with the attributes of the node and the types of its values."""
    if not exists_at(node, opset):
        return False
    schema = defs.get_schema(node.op, opset)
    own = node.operands[: len(node.operands) - node.captured]
    return _fit(own, schema.inputs) and _fit(node.results, schema.outputs)


def _fit(values: Sequence[Value | None], formals: Sequence[defs.OpSchema.FormalParameter]) -> bool:
    if len(values) > len(formals) and not (
        formals and formals[-1].option == defs.OpSchema.FormalParameterOption.Variadic
    ):
        return False
    known = [(port, value.type) for port, value in enumerate(values) if value is not None and is_known(value.type)]
    return all(type_string(type) in formals[min(port, len(formals) - 1)].types for port, type in known)


def type_string(type: Type) -> str:
    """The type as ONNX's schemas write it, `seq(tensor(float))`; it says nothing of shapes."""
    match type:
        case SequenceType(element):
            return f"seq({type_string(element)})"
        case OptionalType(element):
            return f"optional({type_string(element)})"
        case MapType(key, element):
            return f"map({_name(key)}, {type_string(element)})"
        case TensorType() | ScalarType():
            return f"tensor({_name(type.dtype or '')})"


def _name(dtype: str) -> str:
    return str(TensorProto.DataType.Name(DTYPES[dtype])).lower()
