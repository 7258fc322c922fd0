"""ONNX operators that torch has not: each runs in onnxruntime, or in onnx.reference, as one node inside the module."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper

from qir.backends.onnx_opsets import fitting_opsets, lowest_ir_version
from qir.backends.torch_onnx_arrays import to_numpy, to_torch
from qir.errors import QirError
from qir.graph import Node
from qir.infer import promoted_types
from qir.onnx_reference import evaluator
from qir.ops import VOCABULARY_OPSET
from qir.proto import node_proto, within
from qir.types import NUMPY, ScalarType, to_proto, type_of

Run = Callable[[dict[str, Any]], list[Any]]


class OnnxOperator:
    """One ONNX operator as a function of tensors, which onnxruntime runs, and onnx.reference where it can not.

    It has no gradient, and says so when one is asked for. Sequences are lists; a value left out is None; tensors of
    dtypes that torch has not, such as strings, are numpy arrays.
    """

    note = "in onnxruntime, without a gradient"

    def __init__(self, node: Node) -> None:
        self.op = self.__name__ = node.op
        self.inputs = ["" if value is None else f"i{port}" for port, value in enumerate(node.operands)]
        self.outputs = [f"o{port}" for port in range(len(node.results))]
        self.proto = node_proto(node, self.inputs, self.outputs)
        self.opsets = list(fitting_opsets(within([node])))
        self.domains = dict(node.graph.opsets)
        types = promoted_types(node) if node.definition.schema is not None else [None] * len(self.inputs)
        numbers = (isinstance(value.type, ScalarType) if value is not None else False for value in node.operands)
        self.numbers = [type.dtype if number and type else None for number, type in zip(numbers, types, strict=True)]
        self.types = [to_proto(value.type) if value is not None else None for value in node.operands]
        self.runs: dict[tuple[Any, ...], Run] = {}

    def __call__(self, *operands: Any) -> Any:
        feeds = {}
        for name, value, number in zip(self.inputs, operands, self.numbers, strict=True):
            if name:
                feeds[name] = np.asarray(value, NUMPY[number]) if number else to_numpy(value)
        results = [to_torch(result) for result in self._run(feeds)]
        asked = [v for v in operands if isinstance(v, torch.Tensor) and v.requires_grad]
        if asked and torch.is_grad_enabled():
            results = [self._without_gradient(result, asked[0]) for result in results]
        return results[0] if len(results) == 1 else tuple(results)

    def _without_gradient(self, result: Any, asked: torch.Tensor) -> Any:
        if isinstance(result, torch.Tensor) and result.is_floating_point():
            return _NoGradient.apply(result, asked, self.op)  # type: ignore[no-untyped-call]
        return result

    def _run(self, feeds: dict[str, Any]) -> list[Any]:
        key = tuple(str(array.dtype) if isinstance(array, np.ndarray) else type(array) for array in feeds.values())
        if key not in self.runs:
            self.runs[key] = self._runnable(feeds)
        return self.runs[key](feeds)

    def _runnable(self, feeds: dict[str, Any]) -> Run:
        """What runs the node on inputs of these types."""
        if find_spec("onnxruntime") and all(map(_fed, feeds.values())):
            for opset in self.opsets:
                if run := _session(self._model(opset, feeds), feeds):
                    return run
        running = evaluator(self._model(VOCABULARY_OPSET, feeds))

        def reference(feeds: dict[str, Any]) -> list[Any]:
            try:
                return list(running.run(None, feeds))
            except Exception as error:  # whatever the reference implementation of an operator raises
                raise QirError(f"neither onnxruntime nor onnx.reference runs this {self.op}: {error}") from error

        return reference

    def _model(self, opset: int, feeds: dict[str, Any]) -> onnx.ModelProto:
        inputs = []
        for name, stated in zip(self.inputs, self.types, strict=True):
            if name:
                fed = feeds[name]
                typed = to_proto(type_of(fed)) if isinstance(fed, np.ndarray) else stated
                inputs.append(onnx.ValueInfoProto(name=name, type=_without_shape(typed)))
        outputs = [onnx.ValueInfoProto(name=name) for name in self.outputs]
        imports = [helper.make_opsetid(domain, version) for domain, version in {"": opset, **self.domains}.items()]
        graph = helper.make_graph([self.proto], "one", inputs, outputs)
        return helper.make_model(graph, opset_imports=imports, ir_version=max(10, lowest_ir_version(opset)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "runs": {}}

    def __repr__(self) -> str:
        return f"{self.op}({self.note})"


class _NoGradient(torch.autograd.Function):
    """The identity, with an error in the place of a gradient."""

    @staticmethod
    def forward(ctx: Any, result: torch.Tensor, asked: torch.Tensor, op: str) -> torch.Tensor:
        ctx.op = op
        return result.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        raise QirError(
            f"{ctx.op} runs in onnxruntime, as one node of this module, and has no gradient",
            help="freeze what stands before it: parameter.requires_grad_(False), or call it under torch.no_grad()",
        )


def _fed(value: Any) -> bool:
    """Whether onnxruntime takes the value from numpy."""
    if isinstance(value, list):
        return all(map(_fed, value))
    return isinstance(value, np.ndarray) and (value.dtype.kind in "OUS" or value.dtype.type.__module__ == "numpy")


NOT_IN_NUMPY = ("float8", "float4", "bfloat16", "int4", "int2")
"""What the names of types have that onnxruntime returns as other types."""


def _session(model: onnx.ModelProto, feeds: dict[str, Any]) -> Run | None:
    """The model in onnxruntime.

    None when that can not load it, or not run it on these inputs, or when numpy lacks the dtype of a result.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        if any(name in output.type for output in session.get_outputs() for name in NOT_IN_NUMPY):
            return None
        session.run(None, feeds)
    except Exception:  # onnxruntime's exceptions share no base class
        return None
    return lambda feeds: list(session.run(None, feeds))


def _without_shape(type: onnx.TypeProto | None) -> onnx.TypeProto:
    """`type` for tensors of any shape."""
    plain = onnx.TypeProto()
    if type is not None:
        plain.CopyFrom(type)
    inner = plain
    while (kind := inner.WhichOneof("value")) in ("sequence_type", "optional_type"):
        inner = getattr(inner, kind).elem_type
    if inner.HasField("tensor_type"):
        inner.tensor_type.ClearField("shape")
    return plain
