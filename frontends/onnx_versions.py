"""Nodes of older opsets as nodes of the vocabulary's opset.

A node is kept when the newest schema of its operator gives it the meaning that it has; otherwise ONNX's own version
converter rewrites it, alone: weights and names of the rest of the model never pass through the converter.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import onnx
from onnx import checker, defs, helper, shape_inference, version_converter

from qir.errors import QirError
from qir.ops import VOCABULARY_OPSET

CHANGED_SILENTLY = {"GroupNormalization": 21, "Split": 18}
"""The opset at which an operator's meaning changed although its signature takes the old nodes."""

OLD_DEFAULTS = {
    ("RoiAlign", 16): {"coordinate_transformation_mode": "output_half_pixel"},
    ("Resize", 11): {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
}
"""What a node older than (operator, opset) means by leaving out an attribute that came with that opset."""

CONVERTED_WRONGLY = {"Hardmax", "GroupNormalization"}
"""Operators that the version converter passes on although their meaning changed."""


CONVERTER_ERRORS = (
    RuntimeError,
    ValueError,
    checker.ValidationError,
    shape_inference.InferenceError,
    version_converter.ConvertError,
)
IR_VERSION = 8


@cache
def schema_at(op: str, opset: int) -> defs.OpSchema | None:
    """The schema that `op` of the default domain has at `opset`, perhaps deprecated; None when it has none."""
    try:
        return defs.get_schema(op, opset)
    except defs.SchemaError:
        return None


def modern(
    node: onnx.NodeProto, opset: int, types: Mapping[str, onnx.TypeProto], data: Mapping[str, onnx.TensorProto]
) -> onnx.GraphProto:
    """Nodes of the vocabulary's opset that compute what `node` computes at `opset`, and the types of the results.

    `types` holds the types of its operands, `data` the constants among them. Raises QirError when there are none.
    """
    if keeps_meaning(node, opset):
        result = onnx.GraphProto(node=[node])
    else:
        result = _converted(node, opset, types, data)
    for (op, version), old in OLD_DEFAULTS.items():
        for newer in result.node:
            if newer.op_type == op and opset < version:
                missing = set(old) - {attribute.name for attribute in newer.attribute}
                newer.attribute.extend(helper.make_attribute(name, old[name]) for name in missing)
    return result


def keeps_meaning(node: onnx.NodeProto, opset: int) -> bool:
    """Whether `node` means the same at `opset` and at the vocabulary's opset.

    It does when the operator's schema is the same, or when the newest one differs only by element types, by operands
    and results that the node does not have, and by attributes that the node does not state and whose default is the
    old behaviour. CHANGED_SILENTLY lists the exceptions.
    """
    old, new = schema_at(node.op_type, opset), schema_at(node.op_type, VOCABULARY_OPSET)
    if old is None or new is None or new.deprecated or old.since_version == new.since_version:
        return new is not None and not new.deprecated
    if old.since_version < CHANGED_SILENTLY.get(node.op_type, 0):
        return False
    return _same_ports(node, old, new) and _same_attributes(node, old, new)


def _same_ports(node: onnx.NodeProto, old: defs.OpSchema, new: defs.OpSchema) -> bool:
    inputs = [formal.name for formal in old.inputs], [formal.name for formal in new.inputs]
    outputs = [formal.name for formal in old.outputs], [formal.name for formal in new.outputs]
    used = ((inputs, len(node.input)), (outputs, len(node.output)))
    return all(before[:count] == after[:count] for (before, after), count in used)


def _same_attributes(node: onnx.NodeProto, old: defs.OpSchema, new: defs.OpSchema) -> bool:
    stated = {attribute.name for attribute in node.attribute}
    for name, before in old.attributes.items():
        after = new.attributes.get(name)
        if after is None:
            if name in stated or before.default_value.type:
                return False
        elif (before.type, before.default_value) != (after.type, after.default_value):
            return False
    return all(not attribute.required or name in stated for name, attribute in new.attributes.items())


def _context(opset: int) -> checker.C.CheckerContext:
    context = checker.C.CheckerContext()
    context.ir_version, context.opset_imports = IR_VERSION, {"": opset}
    return context


def _converted(
    node: onnx.NodeProto, opset: int, types: Mapping[str, onnx.TypeProto], data: Mapping[str, onnx.TensorProto]
) -> onnx.GraphProto:
    inputs = [onnx.ValueInfoProto(name=name, type=type) for name, type in types.items() if name not in data]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], "one", inputs, outputs, list(data.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION)
    try:
        if node.op_type in CONVERTED_WRONGLY:
            raise ValueError("its meaning changed")
        # The converter trusts attributes to be of the type that the schema states, and crashes when they are not.
        checker.check_node(node, _context(opset))
        typed = shape_inference.infer_shapes(model, data_prop=True)
        result = version_converter.convert_version(typed, VOCABULARY_OPSET)
    except CONVERTER_ERRORS as error:
        reason = str(error).strip().splitlines()
        raise QirError(
            f"{node.op_type} of opset {opset} has no equal at opset {VOCABULARY_OPSET}: {reason[0] if reason else ''}",
            help="export the model again at opset 13 or newer",
        ) from None
    made = [tensor for tensor in result.graph.initializer if tensor.name not in data]
    constants = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in made]
    return onnx.GraphProto(node=[*constants, *result.graph.node], value_info=typed.graph.output)
