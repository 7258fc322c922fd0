"""Simulators saved and loaded whole: everything that training, calibration and the user's settings have changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from qir.attributes import Port
from qir.backends.torch_grids import Grid
from qir.backends.torch_module import emit_torch
from qir.backends.torch_named import framework_object
from qir.backends.torch_quantizers import Quantizer, quantizers_of
from qir.encodings.encoding import ProductEncoding
from qir.errors import QirError
from qir.graph import Graph, Node
from qir.quantizers import quantizers, replace_encodings
from qir.simulation.checkpoint_file import Checkpoint, damaged, read_checkpoint, write_checkpoint
from qir.size_expressions import names_in, parsed, written
from qir.torch_signature import Fixed, Sizes, TorchSignature
from qir.types import NUMPY, type_of
from qir.verify import verify

RAW = {torch.bfloat16: "bf16", torch.float8_e4m3fn: "f8e4m3fn", torch.float8_e5m2: "f8e5m2"}
"""The dtypes that torch does not hand to numpy itself."""


def save_checkpoint(path: str | Path, graph: Graph, module: nn.Module, extra: Mapping[str, Any] | None = None) -> None:
    """Write `module`, which was emitted from `graph`, to one file, whole or not at all.

    Kept are tensors, encodings, training flags, which parameters are trained, learned ranges and disabled quantizers;
    `extra` is anything that JSON can hold. Raises QirError for a module of another graph.
    """
    held = [value for value in graph.weights() if value.weight is not None]
    wanted = {name: value.type.dtype for value in held for name in (value.weight.paths if value.weight else ())}
    arrays: dict[int, np.ndarray] = {}
    state: dict[str, np.ndarray] = {}
    dtypes: dict[str, str] = {}
    for key, tensor in module.state_dict(keep_vars=True).items():
        here = as_array(tensor)
        dtype = type_of(here).dtype or ""
        if wanted.get(key, dtype) != dtype:
            dtypes[key] = dtype
        state[key] = arrays.setdefault(id(tensor), _widened(key, here, wanted.get(key) or dtype))
    settings = {
        "training": [name for name, inner in module.named_modules() if inner.training],
        "constant": [name for name, parameter in module.named_parameters() if not parameter.requires_grad],
        "learned": [name for name, inner in module.named_modules() if isinstance(inner, Grid) and inner.learned],
        "disabled": [name for name, quantizer in quantizers_of(module) if not quantizer.enabled],
        "dtypes": dtypes,
        "signature": _signature(graph),
        "layers": sorted({node.op for node in graph.nodes() if _is_kept(node)}),
    }
    write_checkpoint(path, Checkpoint(_current(graph, module, state), state, settings, extra or {}))


def load_checkpoint(path: str | Path, graph: Graph | None = None) -> tuple[Graph, fx.GraphModule, dict[str, Any]]:
    """The graph, module and extras that `save_checkpoint` was given, the module's outputs equal bit for bit.

    Models with layers that qir keeps as they are, and those that return containers of their own classes, need `graph`:
    that of a simulator made like the one that was saved. Raises QirError for a file that is no checkpoint, is damaged,
    or was saved from another graph than `graph`.
    """
    found = read_checkpoint(path, graph)
    settings = found.module
    if graph is None and settings["layers"]:
        raise QirError(f"the checkpoint {path} is of a model with calls that text can not hold",
                       snippet="\n".join(settings["layers"][:20]),
                       help="load it into a simulator that was made like the one that was saved")  # fmt: skip
    if graph is None:
        found.graph.signature = _read_signature(settings["signature"], found.graph, path)
    verify(found.graph)
    module = emit_torch(found.graph)
    inner = dict(module.named_modules())
    for name in settings["learned"]:
        if not isinstance(grid := inner.get(name), Grid):
            damaged(path, f"there is no grid {name}")
        grid.learn()
    _put_state(module, found, path)
    for name, part in inner.items():
        part.training = name in settings["training"]
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in settings["constant"])
    for name in settings["disabled"]:
        if not isinstance(quantizer := inner.get(name), Quantizer):
            damaged(path, f"there is no quantizer {name}")
        quantizer.enabled = False
    return found.graph, module, dict(found.extra)


def _is_kept(node: Node) -> bool:
    """Whether the node calls an object that its name in the text does not lead to: a layer, a function of the user."""
    if not node.definition.opaque or node.host is None:
        return False
    try:
        return framework_object(node.op) is not node.host
    except QirError:
        return True


def _current(graph: Graph, module: nn.Module, state: Mapping[str, np.ndarray]) -> Graph:
    """A copy of `graph` with the encodings of the module's quantizers, and with its weights as they are in `state`."""
    copy, held = graph.copy(), dict(quantizers_of(module))
    encodings = {}
    for node in quantizers(copy):
        if (quantizer := held.get(node.module or "")) is None:
            raise QirError(f"the module has no quantizer {node.module}: it was emitted from another graph", node)
        if not isinstance(node.attrs["encoding"], ProductEncoding):
            encodings[node.attrs["encoding"]] = quantizer.encoding
    replace_encodings(copy, encodings)
    for value in copy.weights():
        weight = value.weight
        known = [name for name in (weight.paths if weight is not None else ()) if name in state]
        if weight is not None and known:
            value.weight = replace(weight, data=state[known[0]], read=np.asarray, known_digest=None)
    return copy


def _put_state(module: nn.Module, found: Checkpoint, path: str | Path) -> None:
    """Let the module's tensors hold the state, in the dtypes that they had."""
    own = module.state_dict(keep_vars=True)
    if own.keys() != found.state.keys():
        odd = sorted(own.keys() ^ found.state.keys())
        damaged(path, f"{len(odd)} tensors of the module are missing or surplus: {', '.join(odd[:5])}")
    dtypes, done = found.module["dtypes"], set()
    for key, tensor in own.items():
        if id(tensor) in done:
            continue
        array = found.state[key]
        given = _tensor(array.astype(NUMPY[dtypes[key]]) if dtypes.get(key) in NUMPY else array)
        if given.shape != tensor.shape or given.is_floating_point() != tensor.is_floating_point():
            damaged(path, f"{key} is {list(given.shape)} and the module's {list(tensor.shape)}")
        tensor.data = given
        done.add(id(tensor))


def as_array(tensor: Tensor) -> np.ndarray:
    """The tensor as numpy, of a dtype of `ml_dtypes` where numpy has none."""
    plain = tensor.detach().cpu()
    if plain.dtype in RAW:
        numbers = plain.contiguous().reshape(-1).view(torch.uint8).numpy()
        return numbers.view(NUMPY[RAW[plain.dtype]]).reshape(plain.shape)
    return plain.numpy()


def _tensor(array: np.ndarray) -> Tensor:
    for dtype, name in RAW.items():
        if array.dtype == NUMPY[name]:
            return torch.from_numpy(array.reshape(-1).view(np.uint8).copy()).view(dtype).reshape(array.shape)
    return torch.from_numpy(np.array(array))


def _widened(key: str, array: np.ndarray, dtype: str) -> np.ndarray:
    """`array` in the graph's dtype. Raises QirError when that has not room for it."""
    wide = array.astype(NUMPY[dtype])
    if wide.astype(array.dtype).tobytes() != array.tobytes():
        raise QirError(f"{key} is {array.dtype} in the module and {dtype} in the graph",
                       help="convert the module back before it is saved: sim.model.float()")  # fmt: skip
    return wide


def _signature(graph: Graph) -> dict[str, Any] | None:
    """How the model takes its inputs, as JSON can hold it."""
    if graph.signature is None:
        return None
    signature: TorchSignature = graph.signature
    try:
        spec = None if signature.spec is None else pytree.treespec_dumps(signature.spec)
    except NotImplementedError as error:
        raise QirError(f"a checkpoint can not hold how the model takes its inputs: {error}") from None
    leaves = [leaf.index if isinstance(leaf, Port) else [leaf.name, leaf.value] for leaf in signature.leaves]
    return {"leaves": leaves, "names": list(signature.names), "spec": spec, "sizes": _written_sizes(signature.sizes)}


def _read_signature(given: Any, graph: Graph, path: str | Path) -> TorchSignature | None:
    if given is None:
        return None
    leaves = tuple(Port(leaf) if isinstance(leaf, int) else Fixed(*leaf) for leaf in given["leaves"])
    if sorted(leaf.index for leaf in leaves if isinstance(leaf, Port)) != list(range(len(graph.inputs))):
        damaged(path, "its signature is of other inputs")
    try:
        spec = None if given["spec"] is None else pytree.treespec_loads(given["spec"])
        sizes = None if given["sizes"] is None else _read_sizes(given["sizes"], graph)
    except Exception as error:  # torch raises what it meets
        damaged(path, f"its signature can not be read: {error}")
    return TorchSignature(leaves, tuple(given["names"]), spec, sizes)


def _written_sizes(sizes: Sizes | None) -> dict[str, Any] | None:
    if sizes is None:
        return None
    of_inputs = [list(map(written, own)) if isinstance(own, tuple) else own for own in sizes.of_inputs]
    return {"of_inputs": of_inputs, "conditions": list(map(written, sizes.conditions))}


def _read_sizes(given: dict[str, Any], graph: Graph) -> Sizes:
    of_inputs = tuple(tuple(map(parsed, own)) if isinstance(own, list) else own for own in given["of_inputs"])
    conditions = tuple(map(parsed, given["conditions"]))
    known = {size for own in of_inputs for size in (own if isinstance(own, tuple) else (own,)) if isinstance(size, str)}
    if len(of_inputs) != len(graph.inputs) or not all(names_in(condition) <= known for condition in conditions):
        raise QirError("its sizes are of other inputs")
    return Sizes(of_inputs, conditions)
