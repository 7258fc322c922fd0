"""Blocks that torch.export keeps as one call: under a context, branches of torch.cond, bodies of loops.

A block under a context becomes part of the graph around it. Branches and bodies become graphs of their own, the bodies
of ONNX's If and Loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

from torch import fx

from qir.errors import QirError
from qir.facts import computes
from qir.frontends.torch_aten import FOLLOWS, aten
from qir.frontends.torch_lowerings import Builder
from qir.frontends.torch_names import CallNames
from qir.frontends.torch_program import type_of_example
from qir.frontends.torch_weights import Weights
from qir.graph import Graph, Value
from qir.paths import Paths

if TYPE_CHECKING:
    from qir.frontends.torch_export import ProgramImporter

Region = Callable[..., list[Any]]


def inlined(
    importer: ProgramImporter, body: fx.GraphModule, operands: Sequence[Any], at: tuple[int, ...] = ()
) -> list[Any]:
    """The results of a block, its calls added to the importer's graph; `at` is the block's place among the calls."""
    returned: Any = ()
    arguments = iter(operands)
    importer.position.update((inner, (*at, number)) for number, inner in enumerate(body.graph.nodes))
    for inner in body.graph.nodes:
        if inner.op == "placeholder":
            importer.known[inner] = next(arguments)
        elif inner.op == "get_attr":
            importer.known[inner] = getattr(body, str(inner.target))
        elif inner.op == "output":
            returned = importer.resolve(inner.args[0])
        else:
            importer.call(inner)
    return list(returned) if isinstance(returned, list | tuple) else [returned]


def _without_gradients(importer: ProgramImporter, node: fx.Node, enabled: bool, body: Any, *operands: Any) -> list[Any]:
    results = inlined(importer, body, operands, importer.position[node])
    return results if enabled else [_detached(importer, value) for value in results]


def _without_autocast(
    importer: ProgramImporter, node: fx.Node, device: Any, dtype: Any, enabled: bool, cache: Any, body: Any,
    *operands: Any,
) -> list[Any]:  # fmt: skip
    if enabled:
        raise QirError("a part of the model runs under autocast", stage="import", help="keep that module whole")
    return inlined(importer, body, operands, importer.position[node])


def _detached(importer: ProgramImporter, value: Any) -> Any:
    if not isinstance(value, Value) or value.type.dtype is None or value.type.dtype[0] not in "fbc":
        return value
    build = Builder(importer.graph, importer.weights.of)
    result = importer.kept(build, aten.detach.default, [value], {})
    result.type = value.type
    importer.in_order += build.added
    return result


def _cond(importer: ProgramImporter, node: fx.Node, condition: Any, then: Any, otherwise: Any, operands: Any) -> Any:
    """If."""
    build = Builder(importer.graph, importer.weights.of)
    read = [build.value(operand) for operand in operands]

    def branch(name: str, block: fx.GraphModule) -> Graph:
        inner, (given,) = _body(importer, name, block, read)
        return _closed(inner, inlined(inner, block, given), len(read))

    bodies = {"then_branch": branch("then", then), "else_branch": branch("otherwise", otherwise)}
    return _added(importer, node, build, "If", [build.value(condition), *read], bodies)


def _while_loop(importer: ProgramImporter, node: fx.Node, test: Any, step: Any, carried: Any, others: Any) -> Any:
    """Loop."""
    build = Builder(importer.graph, importer.weights.of)
    state, read = ([build.value(operand) for operand in operands] for operands in (carried, others))
    (going,) = inlined(importer, test, [*state, *read], importer.position[node])
    number = importer.graph.constant(0)
    inner, (_, _, states, captured) = _body(importer, "step", step, [number], [going], state, read)
    importer.graph.remove_weight(number)
    after = inlined(inner, step, [*states, *captured])
    (again,) = inlined(inner, test, [*after, *captured])
    body = _closed(inner, [again, *after], len(read))
    return _added(importer, node, build, "Loop", [None, going, *state, *read], {"body": body})


REGIONS: dict[str, Region] = {
    "wrap_with_set_grad_enabled": _without_gradients, "wrap_with_autocast": _without_autocast,
    "cond": _cond, "while_loop": _while_loop,
}  # fmt: skip
"""What the calls of blocks become, by the name of the operator."""


def _body(
    importer: ProgramImporter, name: str, block: fx.GraphModule, *given: Sequence[Any]
) -> tuple[ProgramImporter, list[list[Value]]]:
    """An importer of the block into a graph of its own, and that graph's inputs, like the values `given`."""
    if any(call.target in FOLLOWS and not importer.callers.follows_training(call) for call in block.graph.nodes):
        importer.graph.inference_only = "a block may compute something else in training"
    inner = copy(importer)
    inner.graph = Graph(name)
    inner.weights, inner.names = Weights(inner.graph, ()), CallNames()
    inner.known, inner.in_order, inner.devices = {}, [], {}
    return inner, [[inner.graph.input(value.hint, value.type) for value in values] for values in given]


def _closed(inner: ProgramImporter, results: Sequence[Any], captured: int) -> Graph:
    """The graph of a body, every call of it a layer."""
    build = Builder(inner.graph, inner.weights.of)
    graph = inner.graph
    for result in results:
        value = build.value(result)
        if value is None:
            raise QirError("a branch returns None", stage="import", help="return a tensor from it")
        graph.outputs.append(value)
    graph.captured = captured
    inner.finish()
    paths, called = Paths(graph), set[str]()
    for node in graph.nodes():
        if computes(node) and (node.module is None or node.module in called):
            node.module = paths.new("", f"module_{node.result.hint}")
        called.add(node.module or "")
    return graph


def _added(importer: ProgramImporter, node: fx.Node, build: Builder, op: str, operands: Any, bodies: Any) -> list[Any]:
    types = [type_of_example(value) for value in node.meta["val"]]
    made = importer.graph.add(op, operands, bodies, types=types)
    build.added.append(made)
    importer.place(build, node)
    return list(made.results)
