"""ONNX models as graphs, one node to one node.

Tensor names become hints and node names module paths, exactly; weights stay where they are. Four things change form:

* Nodes of opsets whose meaning changed since are rewritten by ONNX's version converter, alone (`onnx_versions`).
* Calls of functions that the model defines are replaced by the functions' nodes.
* Sparse tensors get their zeros.
* `Constant` nodes, and initializers that act as an attribute, become literals: those of at most 16 elements that are
  numbers, vectors of i64 (shapes, axes, pads), or vectors read only where the operator takes no other element type
  (the scales of Resize). A weight or bias stays a weight of whatever size.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import inliner

from qir.errors import QirError
from qir.frontends.onnx_checks import check, standard_opset
from qir.frontends.onnx_files import read_model
from qir.frontends.onnx_graph import GraphImporter, Setting
from qir.frontends.onnx_versions import CONVERTER_ERRORS
from qir.graph import Graph


def import_onnx(model: onnx.ModelProto | Path | str) -> Graph:
    """The graph of an ONNX model, or of the model in a file.

    The bodies of If, Loop, Scan and SequenceMap are graphs in the attributes of the node, which reads what they capture
    as its last operands. Operators of other domains are opaque, and `opsets` has the versions of these domains. Raises
    one QirError, which lists everything, for a model that is damaged or malformed.
    """
    folder = None
    if not isinstance(model, onnx.ModelProto):
        folder, model = Path(model).parent, read_model(Path(model))
    nodes = _inlined(model) if model.functions else model
    opset = standard_opset(nodes)
    check(nodes, opset)
    domains = {entry.domain: entry.version for entry in reversed(nodes.opset_import)}
    return GraphImporter(nodes.graph, Setting(opset, domains, folder)).run()


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` without calls of its own functions. Its weights do not pass through the inliner."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    given = {value.name for value in model.graph.input}
    del bare.graph.initializer[:]
    bare.graph.input.extend(onnx.ValueInfoProto(name=t.name) for t in model.graph.initializer if t.name not in given)
    try:
        result = inliner.inline_local_functions(bare, convert_version=True)
    except CONVERTER_ERRORS as error:
        raise QirError(f"the functions of the model can not be inlined: {error}", stage="import") from None
    del result.graph.input[:]
    result.graph.input.extend(model.graph.input)
    result.graph.initializer.extend(model.graph.initializer)
    return result
