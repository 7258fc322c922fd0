"""Models of composed operators: attention, recurrent layers, einsum and einops; and what the tests do with each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import qir
from qir.backends.onnx_qdq import executor
from qir.backends.torch_module import emit_torch
from qir.frontends.torch_fx import import_torch
from qir.graph import Graph
from qir.verify import verify
from tests.comparing import same, same_state, tensors, train_step

SPELLINGS = {
    F.scaled_dot_product_attention, F.multi_head_attention_forward, nn.MultiheadAttention, nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer, nn.TransformerEncoder, nn.TransformerDecoder, nn.Transformer, "einops.einops.reduce",
    torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu, nn.LSTM, nn.GRU, nn.RNN,
    torch.lstm_cell, torch.gru_cell, torch.rnn_tanh_cell, torch.rnn_relu_cell, nn.LSTMCell, nn.GRUCell, nn.RNNCell,
}  # fmt: skip
"""Those that `tests.test_attention`, `test_transformer`, `test_recurrent` and `test_einsum` call."""


def traced(target: Any, inputs: Sequence[Tensor], *args: Any, **kwargs: Any) -> nn.Module:
    """One call of a function, `args` and `kwargs` behind the tensors."""
    graph = fx.Graph()
    tensors = [graph.placeholder(f"x{number}") for number in range(len(inputs))]
    graph.output(graph.call_function(target, (*tensors, *args), kwargs))
    return fx.GraphModule(nn.Module(), graph)


def imported(model: nn.Module, inputs: Sequence[Tensor]) -> Graph:
    """The graph, with no call left opaque, that its text reads as."""
    graph = import_torch(model, inputs, batch=None)
    assert not [node.op for node in graph.nodes() if node.definition.opaque]
    verify(graph)
    assert qir.parse(str(graph)) == graph
    return graph


def decomposed(graph: Graph) -> tuple[Graph, fx.GraphModule]:
    """The graph in parts, and as a module."""
    apart = qir.Pipeline.parse("decompose,lift-functionals,unroll-modules").run(graph.copy())
    verify(apart)
    assert qir.parse(str(apart)) == apart
    return apart, emit_torch(apart)


def in_onnx(graph: Graph, inputs: Sequence[Tensor]) -> list[np.ndarray]:
    """What onnxruntime computes of the graph."""
    legal = qir.Pipeline.parse("legalize-onnx").run(graph.copy())
    verify(legal)
    return executor(legal)([value.numpy() for value in inputs])


def check_in_onnx(graph: Graph, inputs: Sequence[Tensor], expected: Any) -> None:
    """Fail unless onnxruntime agrees with what torch computes."""
    for found, tensor in zip(in_onnx(graph, inputs), tensors(expected), strict=True):
        np.testing.assert_allclose(found, tensor.detach().numpy(), rtol=2e-5, atol=2e-6, strict=True)


def difference(first: Any, second: Any) -> float:
    """The largest difference between the tensors of two outputs."""
    return max(float((a - b).abs().max()) for a, b in zip(tensors(first), tensors(second), strict=True))


def check_whole(prepared: nn.Module, model: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Assert that a prepared module has its model's layer, and the same bits: outputs, state, gradients, training."""
    assert type(prepared.layer) is type(model.layer)
    assert same(prepared(*inputs), model(*inputs))
    with torch.no_grad():
        assert same(prepared(*inputs), model(*inputs))
    assert same_state(prepared, model)
    assert same(gradients(prepared, inputs), gradients(model, inputs))
    assert same(train_step(prepared, inputs), train_step(model, inputs))


def gradients(model: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """What a sum of squares of the outputs sends back to the parameters and inputs."""
    leaves = [value.detach().clone().requires_grad_(value.is_floating_point()) for value in inputs]
    model.zero_grad()
    loss = sum((tensor * tensor).sum() for tensor in tensors(model(*leaves)) if tensor.requires_grad)
    assert isinstance(loss, Tensor)
    loss.backward()  # type: ignore[no-untyped-call]
    of_inputs = {str(number): leaf.grad for number, leaf in enumerate(leaves) if leaf.grad is not None}
    return of_inputs | {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
