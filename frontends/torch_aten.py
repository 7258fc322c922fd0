"""ATen operators, as torch.export records them: their lowerings, what they change, what shares memory."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from qir.attributes import TRAINING
from qir.errors import QirError
from qir.frontends.torch_attention import InTraining
from qir.frontends.torch_indexing import at
from qir.frontends.torch_lowerings import Builder, Lowering, known
from qir.frontends.torch_table import lowers
from qir.frontends.torch_transformer import ATTENTION_LAYERS

aten = torch.ops.aten

REORDERED: dict[Any, Any] = {
    aten.alias.default: lambda x: (nn.Identity, (x,)),
    aten.batch_norm.default: lambda x, weight, bias, mean, var, training, momentum, eps, cudnn: (
        F.batch_norm, (x, mean, var, weight, bias, training, momentum, eps)
    ),
    aten.embedding.default: lambda weight, indices, padding_idx=-1, scale_grad=False, sparse=False: (
        F.embedding, (indices, weight, None if padding_idx == -1 else padding_idx, None, 2.0, scale_grad, sparse)
    ),
    aten.instance_norm.default: lambda x, weight, bias, mean, var, use_input_stats, momentum, eps, cudnn: (
        F.instance_norm, (x, mean, var, weight, bias, use_input_stats, momentum, eps)
    ),
    aten.index.Tensor: lambda x, indices: (
        operator.getitem, (x, tuple(slice(None) if index is None else index for index in indices))
    ),
    aten.max_unpool2d.default: lambda *given: (None, given),
    aten.max_unpool3d.default: lambda *given: (None, given),
    aten.elu.default: lambda x, alpha=1, scale=1, input_scale=1: (
        F.elu if scale == input_scale == 1 else None, (x, alpha)
    ),
    aten.log_sigmoid.default: lambda x: (F.logsigmoid, (x,)),
    aten.linalg_vector_norm.default: lambda x, ord=2, dim=None, keepdim=False, dtype=None: (
        torch.linalg.vector_norm, (x, ord, dim, keepdim)
    ),
    aten.tensordot.default: lambda a, b, axes, other_axes: (torch.tensordot, (a, b, (axes, other_axes))),
    aten.im2col.default: lambda x, *sizes: (F.unfold, (x, *sizes)),
    aten.col2im.default: lambda x, *sizes: (F.fold, (x, *sizes)),
    **{
        getattr(aten, f"adaptive_max_pool{rank}d").default: lambda x, size, function=function: (function, (x, size))
        for rank, function in ((2, F.adaptive_max_pool2d_with_indices), (3, F.adaptive_max_pool3d_with_indices))
    },
    aten.slice.Tensor: lambda x, dim=0, start=None, end=None, step=1: (
        operator.getitem, (x, at(dim, slice(start, None if end == 2**63 - 1 else end, step)))
    ),
    **{
        getattr(aten, f"upsample_{mode}").vec: lambda x, size, factors, mode=kind: (
            F.interpolate, (x, size, factors, mode)
        )
        for mode, kind in (("nearest1d", "nearest"), ("nearest2d", "nearest"), ("nearest3d", "nearest"))
    },
    **{
        getattr(aten, f"upsample_{mode}").vec: lambda x, size, align, factors, mode=kind: (
            F.interpolate, (x, size, factors, mode, align)
        )
        for mode, kind in (("linear1d", "linear"), ("bilinear2d", "bilinear"), ("trilinear3d", "trilinear"),
                           ("bicubic2d", "bicubic"))
    },
}  # fmt: skip
"""ATen operators that are called otherwise than the function or layer that they implement, None where that is none."""

FOLLOWS: dict[Any, int] = {
    **{getattr(aten, f"{kind}{ending}").default: 2
       for kind in ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout") for ending in ("", "_")},
    aten.rrelu.default: 3, aten.rrelu_.default: 3, aten.batch_norm.default: 5, aten.instance_norm.default: 5,
    aten.scaled_dot_product_attention.default: 4,
}  # fmt: skip
"""Operators that compute otherwise in training: the place of their training flag, or of their rate of dropout."""


def following(target: Any, args: Sequence[Any], rate: float) -> tuple[Any, ...]:
    """The arguments of a call of one of FOLLOWS that follows the training flag; `rate` is its dropout's, if not 0."""
    arguments = target._schema.arguments
    filled = [*args, *(argument.default_value for argument in arguments[len(args) :] if not argument.kwarg_only)]
    filled[FOLLOWS[target]] = InTraining(rate) if arguments[FOLLOWS[target]].name == "dropout_p" else TRAINING
    if rate and arguments[1].name == "p":
        filled[1] = rate
    return tuple(filled)


def has_flag(target: Any) -> bool:
    """Whether the call is told if it is made in training."""
    schema = getattr(target, "_schema", None)
    return schema is not None and any(argument.name in ("train", "training") for argument in schema.arguments)


def all_calls(program: torch.export.ExportedProgram) -> Iterator[fx.Node]:
    """The calls of a program, those in blocks among them."""
    for module in program.graph_module.modules():
        if isinstance(module, fx.GraphModule):
            yield from module.graph.nodes


def is_noted(node: fx.Node) -> bool:
    """Whether the call is one of which `FlagRecorder` has noted what it was given."""
    first = node.args[0] if node.target in FOLLOWS else None
    return isinstance(first, fx.Node) and first.target is aten.alias.default


def operator_name(target: Any) -> str:
    """The dotted name of an operator, a layer or a function."""
    if isinstance(target, nn.Module):
        return f"torch.nn.{type(target).__name__}"
    if isinstance(target, torch._ops.OpOverload):
        return f"torch.ops.{target._schema.name.replace('::', '.')}.{target._overloadname}"
    return f"torch.{getattr(target, '__module__', '')}.{getattr(target, '__name__', target)}"


def as_written(target: Any, args: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with a training flag given by name, and those behind it."""
    first = next((place for place, value in enumerate(args) if value is TRAINING), None)
    if first is None:
        return tuple(args), {}
    names = [argument.name for argument in target._schema.arguments]
    return tuple(args[:first]), dict(zip(names[first:], args[first:], strict=False))


RECURRENT = {aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input}
"""Operators whose seventh argument is a training flag."""

METHODS = {"_unsafe_view": "reshape", "_to_copy": "to", "copy": "copy_", "zero": "zero_", "lift_fresh_copy": "clone"}
"""Operators that only functional programs have: the method of Tensor that each is."""

CELLS = {aten.lstm_cell.default, aten.gru_cell.default, aten.rnn_tanh_cell.default, aten.rnn_relu_cell.default}


def aliases(node: fx.Node) -> set[fx.Node]:
    """The nodes whose result shares memory with that of `node`: views of it, what it is a view of, in-place results."""
    found, stack = {node}, [node]
    while stack:
        seen = stack.pop()
        near = [user for user in seen.users if _shares_memory(user) and user.args and user.args[0] is seen]
        if _shares_memory(seen) and seen.args and isinstance(seen.args[0], fx.Node):
            near.append(seen.args[0])
        for other in near:
            if other not in found:
                found.add(other)
                stack.append(other)
    return found


def changes(node: fx.Node) -> bool:
    """Whether the call changes an argument."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _shares_memory(node: fx.Node) -> bool:
    if node.target is operator.getitem:
        return True
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    if node.target in (aten.reshape.default, aten.contiguous.default, aten.flatten.using_ints, aten.to.dtype):
        return True
    return any(returned.alias_info is not None for returned in node.target._schema.returns)


def functional(target: Any) -> Any:
    """The operator that returns what an in-place one writes. Raises QirError when there is none."""
    packet, name = target._schema.name.removeprefix("aten::"), target._overloadname
    plain = getattr(aten, packet.removesuffix("_"), None)
    if plain is None or not packet.endswith("_") or name not in plain.overloads():
        raise QirError(f"{target} changes its argument, and has no twin that returns the result", stage="import")
    return getattr(plain, name)


def lowering_of(target: Any) -> Lowering | None:
    """The lowering of an ATen operator: that of the torch function or method of its name."""
    if not isinstance(target, torch._ops.OpOverload):
        return lowers.of_function(target)
    if target._schema.name == "aten::sym_size":
        return lowers.table["Tensor.size"]
    if not target._schema.name.startswith("aten::"):
        return lowers.of_function(target.overloadpacket)
    written = target._schema.name.removeprefix("aten::")
    written = METHODS.get(written, written)
    name, count = written.rstrip("_"), len(target._schema.returns)
    of_torch, of_f = (lowers.of_function(getattr(home, name)) if hasattr(home, name) else None for home in (torch, F))
    found = of_torch or lowers.of_method(name) or lowers.of_method(written) or of_f
    return found if found is None or count == 1 else _of_several(found, count)


def _of_several(lowering: Lowering, count: int) -> Lowering:
    """The lowering, which has to give as many results as the operator has."""

    def checked(build: Builder, *args: Any, **kwargs: Any) -> Any:
        made = lowering(build, *args, **kwargs)
        known(isinstance(made, list | tuple) and len(made) == count, "another number of results")
        return made

    return checked


SINGLE_CALL = {
    kind.__name__ for kind in lowers.table
    if isinstance(kind, type) and issubclass(kind, nn.Module) and kind not in ATTENTION_LAYERS
}  # fmt: skip
