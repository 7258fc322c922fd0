"""What a calibrated simulator is shipped as: the float model, its ONNX file and the encodings, written together."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from qir.encodings.apply import encodings_of, torch_encodings
from qir.encodings.file import document_text, encodings_document
from qir.encodings.tensor_names import float_model
from qir.errors import QirError
from qir.files import write_all
from qir.graph import Graph
from qir.pipeline import Pipeline

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn

Writers = dict[str, Callable[[Path], object]]


def export_simulation(
    graph: Graph,
    module: nn.Module,
    folder: str | Path,
    prefix: str,
    *,
    version: str = "1.0.0",
    format: Literal["encodings", "qdq"] = "encodings",
    encodings_prefix: str | None = None,
    opset: int = 21,
    **about: Any,
) -> list[Path]:
    """Write the simulator `module`, emitted from `graph`, into `folder`: all files or none. Returns their paths.

    | file | holds |
    |---|---|
    | `<prefix>.pth` | the state of the float model, for `torch.load(weights_only=True)` |
    | `<prefix>.safetensors` | the same |
    | `<prefix>.onnx` | the float model; with the format `qdq`, the model with QuantizeLinear and DequantizeLinear |
    | `<prefix>.encodings` | the encodings in `version`, by the names of tensors in the float ONNX model |
    | `<prefix>_torch.encodings` | the encodings by layer |

    Weights are those that training left, not rounded: who rounds them to their encodings gets the simulator's. A QDQ
    model holds its encodings itself, and has no file for them. The encodings files are called `encodings_prefix` where
    that is given; `about` are the `quantizer_args` and `excluded_layers` that they note.

    Raises QirError for a simulator that is not calibrated, and for what ONNX or the version has no place for.
    """
    from qir.backends.torch_snapshot import snapshot

    now = snapshot(graph, module)
    named = prefix if encodings_prefix is None else encodings_prefix
    writers: Writers = {f"{named}_torch.encodings": _text(document_text(torch_encodings(now, **about)))}
    if format == "qdq":
        model = _quantized_model(now, opset)
    elif format == "encodings":
        model, document = _float_model(now, opset, version, about)
        writers[f"{named}.encodings"] = _text(document_text(document))
    else:
        raise QirError(f"there is no export format {format!r}", help="formats are 'encodings' and 'qdq'")
    writers[f"{prefix}.onnx"] = _bytes(_serialized(model))
    writers |= _state_files(prefix, float_state(module))
    paths = {Path(folder) / name: write for name, write in writers.items()}
    write_all(paths)
    return list(paths)


def float_state(module: nn.Module) -> dict[str, Tensor]:
    """The state of a simulator without that of its quantizers: the state of the float model."""
    from qir.backends.torch_quantizers import quantizers_of

    owned = tuple(f"{path}." for path, _ in quantizers_of(module))
    state: Mapping[str, Tensor] = module.state_dict()
    return {key: tensor for key, tensor in state.items() if not key.startswith(owned)}


def _float_model(graph: Graph, opset: int, version: str, about: Mapping[str, Any]) -> tuple[onnx.ModelProto, Any]:
    """The float ONNX model, and the document of its encodings."""
    from qir.backends.onnx_qdq import emit_onnx

    made = float_model(graph, opset)
    document = encodings_document(encodings_of(graph, made.names, **about), version)
    return emit_onnx(made.graph, opset=opset), document


def _quantized_model(graph: Graph, opset: int) -> onnx.ModelProto:
    from qir.backends.onnx_qdq import emit_onnx

    legalize = f"legalize-onnx{{opset={opset}}}"
    return emit_onnx(Pipeline.parse(f"{legalize},gather-integers,expand-opaque,{legalize}").run(graph.copy()))


def _serialized(model: onnx.ModelProto) -> bytes:
    try:
        return bytes(model.SerializeToString(deterministic=True))
    except Exception as error:  # protobuf's errors share no base class
        raise QirError(f"the ONNX model can not be written to one file: {error}") from None


def _state_files(prefix: str, state: Mapping[str, Tensor]) -> Writers:
    import torch

    from qir.backends.torch_checkpoint import as_array
    from qir.weights_file import write_tensors

    plain = {key: tensor.detach().cpu() for key, tensor in state.items()}
    pickled = io.BytesIO()
    torch.save(plain, pickled)
    arrays = {key: as_array(tensor) for key, tensor in plain.items()}
    return {
        f"{prefix}.pth": _bytes(pickled.getvalue()),
        f"{prefix}.safetensors": lambda path: write_tensors(path, arrays, {"format": "pt"}),
    }


def _text(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


def _bytes(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)
