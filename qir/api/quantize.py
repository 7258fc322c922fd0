"""What most users call: models in, prepared modules, simulators and ONNX files out. Frameworks are imported on use."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from qir.api.keras import imported_keras, is_keras, keras_simulator, with_trained_weights
from qir.api.preparation import PREPARE
from qir.batches import Batch, peeked
from qir.errors import QirError
from qir.graph import Graph
from qir.pipeline import Pass, Pipeline
from qir.placement.targets import Target
from qir.placement.targets import target as profile_of
from qir.reasons import Reason, Reasons, about_only, noted
from qir.rewrite import Note

if TYPE_CHECKING:
    import keras
    import onnx
    from torch import fx


def import_model(model: Any, example_inputs: Sequence[Any] | None = None) -> Graph:
    """The graph of a Keras model, a torch module, or an ONNX model or file.

    `example_inputs` are positional arguments for a torch module; they give types to the graph's values.
    """
    if is_keras(model):
        return imported_keras(model)
    if _is_module(model):
        from qir.frontends.torch_fx import import_torch

        return import_torch(model, example_inputs)
    if isinstance(model, str | Path) or type(model).__module__.startswith("onnx"):
        from qir.frontends.onnx_model import import_onnx

        return import_onnx(model)
    raise QirError(
        f"qir reads no model of type {type(model).__name__}",
        help="give a keras.Model, a torch.nn.Module, an onnx.ModelProto or a path",
    )


def quantization(
    target_name: str = "ort-x86-vnni",
    *,
    data: Iterable[Batch] | None = None,
    insert: str = "",
    calibrate: str = "",
) -> Pipeline:
    """The pipeline that `quantize` runs for a target: from an imported graph to calibrated quantizers.

    `insert` holds more options of `insert-quantizers`, as in `per_channel=false`, and `calibrate` those of the pass
    `calibrate`, as in `method=percentile`.
    """
    profile = profile_of(target_name)
    options = " ".join(part for part in (f"target={target_name}", insert) if part)
    passes = Pipeline.parse(
        f"decompose,fold-constants,{PREPARE},fold-batch-norm,legalize-onnx{{opset={profile.opset}}},infer-shapes,"
        f"reduce-mean-to-pool,{PREPARE},insert-quantizers{{{options}}},propagate-encodings,calibrate{{{calibrate}}}"
    )
    return passes if data is None else fed(passes, data)


def fed(pipeline: Pipeline, data: Iterable[Batch]) -> Pipeline:
    """The pipeline, where every pass that takes data is given `data`, unless it is given a file."""

    def with_data(step: Pass) -> Pass:
        takes = any(option.name == "data" for option in fields(step)) and getattr(step, "file", None) is None
        return replace(step, **{"data": data}) if takes else step

    return Pipeline(tuple(map(with_data, pipeline.passes)))


@dataclass(frozen=True)
class Quantized:
    """A calibrated graph and the target that it is for."""

    graph: Graph
    target: Target
    pipeline: Pipeline
    reasons: tuple[Reason, ...] = field(default=(), repr=False, compare=False)

    def simulator(self, mode: Literal["float", "integer"] = "float") -> fx.GraphModule:
        """A torch module that computes what the target will.

        `float` rounds in float32 and has gradients, for training. `integer` computes with the target's own integer
        arithmetic: its outputs equal the runtime's bit for bit where no float operator stands in between.
        """
        from qir.backends.torch_module import emit_torch

        if mode == "float":
            return emit_torch(self.graph)
        if mode != "integer":
            raise QirError(f"there is no simulator mode {mode!r}", help="modes are 'float' and 'integer'")
        return emit_torch(self.integer_graph())

    def keras_simulator(self) -> keras.Model:
        """A Keras model that computes what the float simulator does, and trains with `fit` on Keras's backend.

        Its quantize layers pass gradients straight through; their grids stay as they are. `with_weights` takes what it
        learned. Raises QirError for operators that are not written in `keras.ops`.
        """
        return keras_simulator(self.graph)

    def with_weights(self, trained: Any) -> Quantized:
        """The same with the weights of a simulator that was trained: a Keras model or a torch module."""
        return replace(self, graph=with_trained_weights(self.graph, trained))

    def integer_graph(self) -> Graph:
        """The graph in the integer operators that the target runs."""
        graph = self.qdq_graph()
        fuse = f"fuse-integer{{target={self.target.source}}}"
        return Pipeline.parse(f"{fuse},spell-batch-norm,{PREPARE}", graph).run(graph)

    def float_operators(self) -> list[Note]:
        """The operators that the target will compute in float, each with the reason."""
        from qir.passes.fuse_integer import FuseInteger

        return FuseInteger(target=self.target.source).run(self.qdq_graph()).missed

    def why(self, about: str = "*") -> list[Reason]:
        """Why every tensor and operator is quantized or not, fused or not, in parts or opaque, pass by pass.

        `about` is a glob for the names of tensors, and of results and layers of operators. What is behind the passes of
        the pipeline are those of `fuse-integer`: what the target computes with integers, and why not the rest.
        """
        from qir.passes.fuse_integer import FuseInteger

        fuse = FuseInteger(target=self.target.source)
        return about_only(chain(self.reasons, noted(fuse, fuse.run(self.qdq_graph()))), about)

    def qdq_graph(self) -> Graph:
        """The graph with QuantizeLinear and DequantizeLinear, as it is shipped."""
        passes = f"legalize-onnx{{opset={self.target.opset}}},gather-integers"
        return Pipeline.parse(passes, self.graph).run(self.graph.copy())

    def _shipped(self) -> Graph:
        """The graph as it is shipped, in ONNX's operators."""
        legalize = f"legalize-onnx{{opset={self.target.opset}}}"
        graph = self.qdq_graph()
        Pipeline.parse(f"expand-opaque,{legalize},keep-sums-apart{{target={self.target.source}}}", graph).run(graph)
        return graph

    def onnx(self, metadata: Mapping[str, str] | None = None) -> onnx.ModelProto:
        """The QDQ model, checked, with `metadata`."""
        from qir.backends.onnx_emit import emit_onnx

        return emit_onnx(self._shipped(), **self._form, metadata=metadata)

    def save(self, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
        """Write the QDQ model to `path`, whole or not at all; weights of more than 2 GiB go beside it."""
        from qir.backends.onnx_emit import write_onnx

        write_onnx(self._shipped(), Path(path), **self._form, metadata=metadata)

    @property
    def _form(self) -> dict[str, int]:
        return {"opset": self.target.opset, "ir_version": self.target.ir_version}


def quantize(
    model: Any,
    example_inputs: Sequence[Any] | None = None,
    *,
    data: Iterable[Batch],
    target: str = "ort-x86-vnni",
    insert: str = "",
    calibrate: str = "",
    watch: Sequence[Any] = (),
) -> Quantized:
    """`model` (a torch module, a graph, an ONNX model or file), quantized for `target` and calibrated on `data`.

    `data` yields batches: an array or tensor for a model with one input, a sequence or a mapping by name for several.
    It is taken batch by batch, and none is kept. A torch module is imported with `example_inputs`, or else with the
    first batch, and must compute what its graph computes, bit for bit. `insert` and `calibrate` hold more options of
    the two passes, as in `quantization`.
    """
    first, data = peeked(data)
    pipeline = quantization(target, data=data, insert=insert, calibrate=calibrate)
    graph = graph_to_quantize(model, example_inputs, first)
    return transformed(graph, pipeline, target, watch)


def transformed(graph: Graph, pipeline: Pipeline, target: str, watch: Sequence[Any] = ()) -> Quantized:
    """What `pipeline` makes of `graph`, which it changes, for `target`, with the reasons of its passes."""
    why = Reasons()
    return Quantized(pipeline.run(graph, [*watch, why]), profile_of(target), pipeline, tuple(why.all()))


def graph_to_quantize(model: Any, example_inputs: Sequence[Any] | None, batch: Batch) -> Graph:
    """The graph that a quantization of `model` begins with, which may be changed; `batch` is the first of its data."""
    if isinstance(model, Graph):
        return model.copy()
    is_module = _is_module(model) and not is_keras(model)
    return _prepared(model, example_inputs, batch) if is_module else import_model(model)


def _is_module(model: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def _prepared(model: Any, example_inputs: Sequence[Any] | None, batch: Any) -> Graph:
    """The graph of a torch module, imported with examples: positional arguments, or a batch that may name them."""
    from qir.api.preparation import preparation
    from qir.api.same_outputs import Examples

    if example_inputs is not None:
        return preparation(model, Examples(list(example_inputs))).graph
    if isinstance(batch, Mapping):
        return preparation(model, Examples(None, {name: _tensor(part) for name, part in batch.items()})).graph
    parts = [batch] if hasattr(batch, "shape") else list(batch)
    return preparation(model, Examples([_tensor(part) for part in parts])).graph


def _tensor(part: Any) -> Any:
    if not isinstance(part, np.ndarray):
        return part
    import torch

    return torch.from_numpy(part)
