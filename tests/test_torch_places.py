"""Names that ONNX allows and torch does not: the module works, and training still finds its way back."""

import numpy as np
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from qir.backends.onnx_emit import emit_onnx
from qir.backends.torch_module import emit_torch
from qir.backends.torch_snapshot import snapshot
from qir.frontends.onnx_model import import_onnx


def model(weight: str, bias: str, first: str, second: str, x: str, y: str) -> ModelProto:
    nodes = [helper.make_node("MatMul", [x, weight], ["h"], first), helper.make_node("Add", ["h", bias], [y], second)]
    arrays = {weight: np.ones((3, 3), np.float32), bias: np.ones(3, np.float32)}
    weights = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in (x, y)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


NAMES = [
    ("fc", "fc.bias", "mm", "add", "x", "y"),
    ("conv", "b", "conv", "add", "x", "y"),
    ("a.b", "a", "mm", "add", "x", "y"),
    ("w", "b", "w.x", "b.y.z", "x", "y"),
    ("lambda", "in", "for", "is", "class", "def"),
    (".w", "b..c", ".", "..", "x:0", "y/z"),
    ("forward", "training", "train", "eval", "self", "y"),
    ("weight", "bias", "_parameters", "parameters", "input", "output"),
    ("w 1", 'b"2', "n 3", "n'4", "x-1", "ß²"),
]


@pytest.mark.parametrize("names", NAMES, ids=lambda names: names[0])
def test_any_names_make_a_module_and_are_kept_in_the_file(names: tuple[str, ...]):
    graph = import_onnx(model(*names))
    emitted = emit_onnx(graph)
    assert [value.name for value in emitted.graph.input] == [names[4]]
    assert [value.name for value in emitted.graph.output] == [names[5]]
    assert {tensor.name for tensor in emitted.graph.initializer} == set(names[:2])
    assert [node.name for node in emitted.graph.node] == list(names[2:4])
    module = emit_torch(graph)
    assert module(torch.ones(2, 3)).tolist() == [[4.0] * 3] * 2
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2)
    assert [weight.array.flat[0] for weight in snapshot(graph, module).weights()] == [2.0, 2.0]
