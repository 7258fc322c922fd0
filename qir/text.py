"""Graph text: one statement a line, in SSA form. `parse(str(graph)) == graph`.

    graph @net(%x: f32[N,3,8,8]) {
      %conv.weight = weight conv.weight : f32[4,3,3,3] #0123456789abcdef trainable
      %conv = Conv %x, %conv.weight {kernel_shape=(3, 3)} : f32[N,4,6,6] [conv] @ net.py:41
      %relu = Relu %conv : f32[N,4,6,6] [module_relu] @ net.py:42 (block)
      return %relu
      $relu = u8 asymmetric scale=0.5 zero_point=0
    }

After an operation come its attributes, the types of its results, the `[layer]` it belongs to, `!n` when its order is
part of its meaning, and the user's lines with the module that they are in. Weights are named by hash; numbers and small
constants that are read once stand in the operand's place: `Clip %x, 0.0, 6.0`, `Reshape %x, i64[2](1, -1)`.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from qir.attributes import Port, Symbol, TrainingMode
from qir.encodings import Encoding, ProductEncoding
from qir.errors import Loc
from qir.reader import parse as parse
from qir.types import ScalarType

if TYPE_CHECKING:
    from qir.graph import Graph, Node, Value

BARE = re.compile(r"[A-Za-z0-9_./\-]+")
INLINE = 16
"""A constant with at most this many elements is written out."""


def quoted(name: str) -> str:
    """`name`, in quotes if it holds characters that a bare name may not."""
    return name if BARE.fullmatch(name) else json.dumps(name)


class Names:
    """Gives every value a name of its own: its hint, numbered when taken."""

    def __init__(self) -> None:
        self.taken: dict[str, int] = {}
        self.of: dict[Any, str] = {}

    def name(self, thing: Any, hint: str) -> str:
        """The name of `thing`, from now on."""
        if thing not in self.of:
            name = hint
            while name in self.taken:
                self.taken[hint] += 1
                name = f"{hint}_{self.taken[hint]}"
            self.taken[name] = 0
            self.of[thing] = name
        return self.of[thing]


def value_names(graph: Graph) -> dict[Value, str]:
    """The name of every value in the text of the graph, which is also its name in an ONNX file."""
    return _name_all(graph, graph.nodes()).of


def _name_all(graph: Graph, nodes: list[Node]) -> Names:
    names = Names()
    for value in [*graph.inputs, *_declared(graph)]:
        names.name(value, value.hint)
    for node in nodes:
        for value in (v for v in node.operands if v is not None and v.weight is not None):
            names.name(value, value.hint)
        for value in node.results:
            names.name(value, value.hint)
    return names


def _declared(graph: Graph) -> list[Value]:
    """The weights that get a statement of their own."""
    return [value for value in graph.weights() if not _is_inline(value)]


def _is_inline(value: Value) -> bool:
    weight = value.weight
    if weight is None or weight.paths or weight.data is None or len(value.uses) != 1 or value.is_output:
        return False
    return not isinstance(weight.data, np.ndarray) or (weight.array.size <= INLINE and weight.array.dtype != object)


def print_graph(graph: Graph) -> str:
    """The text of `graph`. Raises QirError when it has a cycle."""
    nodes = graph.nodes()
    names = _name_all(graph, nodes)
    encodings = name_encodings(nodes, names)
    inputs = ", ".join(f"%{quoted(names.of[value])}: {value.type}" for value in graph.inputs)
    lines = [f"graph @{quoted(graph.name)}({inputs}) {{"]
    lines += [f"  %{quoted(names.of[value])} = {_weight_statement(value)}" for value in _declared(graph)]
    lines += [f"  {_statement(node, names, encodings)}" for node in nodes]
    lines.append(f"  return {_returned(graph, names)}".rstrip())
    lines += [f"  ${quoted(name)} = {_encoding(e, encodings)}" for e, name in encodings.of.items()]
    return "\n".join([*lines, "}"])


def statement(node: Node) -> str:
    """One node as a reader of an error wants it: with the types of what it reads."""
    names = Names()
    results = ", ".join(f"%{quoted(names.name(value, value.hint))}" for value in node.results)
    reads = ", ".join(_operand(v, names) + ("" if v is None or _is_inline(v) else f": {v.type}") for v in node.operands)
    return f"{results} = {node.op} {reads}" + (f" [{node.module}]" if node.module else "")


def name_encodings(nodes: list[Node], values: Names) -> Names:
    """A name for every encoding that the nodes hold: that of the first value on its grid."""
    names = Names()
    for node in nodes:
        for value in node.attrs.values():
            if isinstance(value, Encoding):
                names.name(value, values.of[node.result])
    for encoding in list(names.of):
        if isinstance(encoding, ProductEncoding):
            for factor in (encoding.input, encoding.weight):
                names.name(factor, "factor")
    return names


def _statement(node: Node, names: Names, encodings: Names) -> str:
    results = ", ".join(f"%{quoted(names.of[value])}" for value in node.results)
    parts = [f"{results} = {node.op}"]
    if operands := ", ".join(_operand(value, names) for value in node.operands):
        parts.append(operands)
    if node.attrs:
        parts.append(f"{{{attributes(node, encodings)}}}")
    parts += [":", ", ".join(str(value.type) for value in node.results)]
    if node.module is not None:
        parts.append(f"[{quoted(node.module)}]")
    if node.order is not None:
        parts.append(f"!{node.order}")
    if node.locs:
        parts.append("@ " + ", ".join(map(_location, node.locs)))
    return " ".join(parts)


def _location(loc: Loc) -> str:
    place = f"{quoted(loc.file)}:{loc.line}" if loc.file else ""
    return " ".join(part for part in (place, f"({quoted(loc.scope)})" if loc.scope or not place else "") if part)


def _operand(value: Value | None, names: Names) -> str:
    if value is None:
        return "_"
    return literal(value) if _is_inline(value) else f"%{quoted(names.name(value, value.hint))}"


def literal(value: Value) -> str:
    """A constant, written out."""
    data = value.weight.data if value.weight else None
    if isinstance(value.type, ScalarType):
        return repr(data)
    elements = np.asarray(data).reshape(-1)
    return f"{value.type}({', '.join(_number(element) for element in elements)})"


def _number(element: Any) -> str:
    return str(element) if isinstance(element, np.float32) else repr(element.item())


def _weight_statement(value: Value) -> str:
    weight = value.weight
    assert weight is not None
    if not weight.paths and weight.data is not None:
        if isinstance(value.type, ScalarType) or (weight.array.size <= INLINE and weight.array.dtype != object):
            return f"constant {literal(value)}"
    flags = ["trainable"] * weight.trainable + ["transient"] * (not weight.persistent)
    return " ".join(["weight", *_comma(weight.paths), ":", str(value.type), f"#{weight.digest}", *flags])


def _comma(paths: tuple[str, ...]) -> list[str]:
    return [", ".join(map(quoted, paths))] if paths else []


def attributes(node: Node, encodings: Names | None = None) -> str:
    """`name=value, …`."""
    return ", ".join(f"{name}={attribute(value, encodings)}" for name, value in node.attrs.items())


def attribute(value: Any, encodings: Names | None = None) -> str:
    """An attribute's value as the reader takes it."""
    match value:
        case Encoding():
            return f"${quoted(encodings.of[value])}" if encodings else f"<{_encoding(value, None)}>"
        case Port() | Symbol() | TrainingMode():
            return str(value)
        case tuple():
            return f"({', '.join(attribute(v, encodings) for v in value)}{',' * (len(value) == 1)})"
        case list():
            return f"[{', '.join(attribute(v, encodings) for v in value)}]"
        case dict():
            return f"{{{', '.join(f'{k!r}: {attribute(v, encodings)}' for k, v in value.items())}}}"
        case slice():
            return f"slice({', '.join(attribute(v, encodings) for v in (value.start, value.stop, value.step))})"
        case np.ndarray():
            from qir.types import type_of

            return f"{type_of(value)}({', '.join(_number(element) for element in value.reshape(-1))})"
        case str():
            return json.dumps(value)
        case _:
            return repr(value)


def _encoding(encoding: Encoding, names: Names | None) -> str:
    if isinstance(encoding, ProductEncoding) and names is not None:
        return f"{encoding.dtype} product ${quoted(names.of[encoding.input])} ${quoted(names.of[encoding.weight])}"
    words = [encoding.dtype, "symmetric" if encoding.symmetric else "asymmetric"]
    words += ["narrow"] * encoding.narrow
    words += [] if encoding.axis is None else [f"axis={encoding.axis}"]
    if encoding.scale is not None and encoding.zero_point is not None:
        words += [f"scale={_numbers(encoding.scale)}", f"zero_point={_numbers(encoding.zero_point)}"]
    return " ".join(words)


def _numbers(array: np.ndarray) -> str:
    if array.ndim == 0:
        return _number(array[()])
    return f"[{', '.join(map(_number, array))}]"


def _returned(graph: Graph, names: Names) -> str:
    written = [_operand(value, names) for value in graph.outputs]
    if graph.structure is None:
        return ", ".join(written)

    def arrange(part: Any) -> str:
        match part:
            case bool() | None | str() | float():
                return repr(part) if not isinstance(part, str) else json.dumps(part)
            case int():
                return written[part]
            case tuple():
                return f"({', '.join(map(arrange, part))}{',' * (len(part) == 1)})"
            case list():
                return f"[{', '.join(map(arrange, part))}]"
            case dict():
                return f"{{{', '.join(f'{json.dumps(k)}: {arrange(v)}' for k, v in part.items())}}}"
        raise TypeError(f"an output structure can not hold {part!r}")

    return arrange(graph.structure)
