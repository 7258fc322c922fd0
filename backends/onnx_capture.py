"""What onnxruntime computes inside of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from qir.backends.onnx_qdq import session


def quantized_tensors(model: onnx.ModelProto) -> list[str]:
    """The names of the tensors that the model quantizes while it runs, in its order."""
    held = {tensor.name for tensor in model.graph.initializer}
    return [
        node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] not in held
    ]


def captured(
    model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], tensors: Sequence[str], *, optimize: bool = True
) -> dict[str, np.ndarray]:
    """The outputs of the model for `feeds`, and the values of `tensors` that it quantizes.

    A quantized tensor that is returned as well does not keep onnxruntime from fusing the operators around it.
    """
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    known = {value.name for value in model.graph.output}
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in known)
    running = session(shown, optimize=optimize)
    names = [value.name for value in running.get_outputs()]
    return dict(zip(names, running.run(None, dict(feeds)), strict=True))
