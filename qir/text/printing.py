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
constants that are read once stand in the operand's place: `Clip %x, 0.0, 6.0`, `Reshape %x, i64[2](1, -1)`. A name that
holds other characters than letters, digits and `_./-` stands in quotes. `//` begins a comment. The bodies of nodes are
graphs behind the encodings, and attributes name them: `{body=@step}`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from qir.attributes import Port
from qir.encodings.encoding import Encoding, ProductEncoding
from qir.errors import Loc, QirError
from qir.order import weights_in
from qir.text.encodings import write_encoding
from qir.text.lexer import OPERATOR, quoted, word
from qir.text.literals import number, write_value
from qir.types import NUMPY, ScalarType

if TYPE_CHECKING:
    from qir.graph import Graph, Node, Value

INLINE = 16
"""A constant with at most this many elements is written out."""


class Names:
    """Gives every thing a name of its own: its hint, numbered when taken. `given` are names that there are already."""

    def __init__(self, given: Mapping[Any, str] = MappingProxyType({}), taken: Iterable[str] = ()) -> None:
        self.taken: dict[str, int] = dict.fromkeys([*taken, *given.values()], 0)
        self.of: dict[Any, str] = dict(given)

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


@dataclass
class _Layout:
    """What the text of a graph says where. Constants written in place are `inline`, other weights `declared`."""

    nodes: list[Node]
    inline: list[Value]
    declared: list[Value]
    names: Names

    @classmethod
    def of(cls, graph: Graph, names: Names, nodes: list[Node]) -> _Layout:
        """The layout of `graph` with its nodes in canonical order, whose values get names beside those in `names`.

        Inline constants are named last: the text does not show their names, so no other name may depend on them.
        """
        weights = weights_in(graph, nodes)
        inline = {value: None for value in weights if _is_inline(value)}
        declared = [value for value in weights if value not in inline]
        results = (value for node in nodes for value in node.results)
        for value in chain(graph.inputs, declared, results, inline):
            names.name(value, value.hint)
        return cls(nodes, list(inline), declared, names)


def value_names(graph: Graph, names: Names | None = None, nodes: list[Node] | None = None) -> dict[Value, str]:
    """The name of every value in the text of the graph, which is also its name in an ONNX file.

    In a body these are beside the `names` of the graphs around it. `nodes` are those of the graph, if they are at hand.
    """
    return _Layout.of(graph, names or Names(), nodes or graph.nodes()).names.of


def _is_inline(value: Value) -> bool:
    return _is_written_out(value) and len(value.uses) == 1 and not value.is_output


def _is_written_out(value: Value) -> bool:
    """Whether the text holds the value's data: a number or a small constant that no state dictionary names."""
    weight = value.weight
    if weight is None or weight.paths or weight.data is None:
        return False
    size = value.type.static
    if isinstance(value.type, ScalarType) or size is None:
        return isinstance(value.type, ScalarType)
    return prod(size) <= INLINE and weight.array.dtype in _WRITABLE and weight.array.shape == size


_WRITABLE = frozenset(dtype for dtype in NUMPY.values() if dtype.kind != "O")


def print_graph(graph: Graph) -> str:
    """The text of `graph`. Raises QirError when it has a cycle."""
    layout = _Layout.of(graph, Names(), graph.nodes())
    references = References(name_encodings(layout.nodes, layout.names), _name_bodies(layout.nodes))
    shown: dict[Value | None, str] = {value: f"%{quoted(name)}" for value, name in layout.names.of.items()}
    inputs = [f"{shown[value]}: {value.type}" for value in graph.inputs]
    own = len(inputs) - graph.captured
    captures = f" captures ({', '.join(inputs[own:])})" if graph.captured else ""
    lines = [f"graph @{quoted(graph.name)}({', '.join(inputs[:own])}){captures} {{"]
    lines += [f"  inference_only {quoted(graph.inference_only)}"] if graph.inference_only else []
    lines += [f"  opset {quoted(domain)} {version}" for domain, version in sorted(graph.opsets.items())]
    lines += [f"  {shown[value]} = {_weight_statement(value)}" for value in layout.declared]
    shown.update((value, literal(value)) for value in layout.inline)
    shown[None] = "_"
    lines += [f"  {_statement(node, shown, references)}" for node in layout.nodes]
    lines.append(f"  return {_returned(graph, shown)}".rstrip())
    named = references.encodings.of
    lines += [f"  ${quoted(name)} = {write_encoding(e, named)}" for e, name in named.items()]
    for body, name in references.bodies.values():
        lines += [f"  {line}" for line in _print_as(body, name).split("\n")]
    return "\n".join([*lines, "}"])


@dataclass
class References:
    """The names of what attributes refer to. Bodies are found by the identity of their graph."""

    encodings: Names
    bodies: dict[int, tuple[Graph, str]]


def _name_bodies(nodes: list[Node]) -> dict[int, tuple[Graph, str]]:
    """Every body that the nodes hold, with a name: that of its graph."""
    names, found = Names(), {}
    for node in nodes:
        for body in node.bodies:
            found[id(body)] = body, names.name(id(body), body.name)
    return found


def _print_as(body: Graph, name: str) -> str:
    """The text of a body, under this name."""
    header, rest = str(body).split("\n", 1)
    return f"graph @{quoted(name)}{header.removeprefix(f'graph @{quoted(body.name)}')}\n{rest}"


def statement(node: Node) -> str:
    """One node as a reader of an error wants it: with the types of what it reads."""
    names = Names()
    results = ", ".join("_" if v is None else f"%{quoted(names.name(v, v.hint))}" for v in node.results)
    reads = ", ".join(_operand(value, names) for value in node.operands)
    return f"{results} = {node.op} {reads}".rstrip() + (f" [{node.module}]" if node.module else "")


def _operand(value: Value | None, names: Names) -> str:
    if value is None:
        return "_"
    return literal(value) if _is_inline(value) else f"%{quoted(names.name(value, value.hint))}: {value.type}"


def name_encodings(nodes: list[Node], values: Names) -> Names:
    """A name for every encoding that the nodes hold: that of the first value on its grid."""
    names = Names()
    for node in nodes:
        for value in node.attrs.values():
            for encoding in _encodings_in(value):
                names.name(encoding, values.of[node.result])
    for encoding in list(names.of):
        if isinstance(encoding, ProductEncoding):
            for factor in (encoding.input, encoding.weight):
                names.name(factor, "factor")
    return names


def _encodings_in(value: Any) -> Iterator[Encoding]:
    if isinstance(value, Encoding):
        yield value
    elif isinstance(value, tuple | list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _encodings_in(item)


def fragment(nodes: Iterable[Node], names: Names) -> list[str]:
    """Nodes as statements without their lines, behind the weights that they read; encodings are spelled out.

    `names` names the values, for other fragments too.
    """
    nodes = list(nodes)
    values = dict.fromkeys(value for node in nodes for value in (*node.operands, *node.results) if value is not None)
    shown: dict[Value | None, str] = {None: "_"} | {value: shown_alone(value, names) for value in values}
    weights = (value for value in values if value.weight is not None and not _is_written_out(value))
    return [*(f"{shown[value]} = {_weight_statement(value)}" for value in weights),
            *(_operation(node, shown, None) for node in nodes)]  # fmt: skip


def shown_alone(value: Value, names: Names) -> str:
    """How a fragment shows a value: a literal in place, others by name."""
    return literal(value) if _is_written_out(value) else f"%{quoted(names.name(value, value.hint))}"


def _statement(node: Node, shown: Mapping[Value | None, str], references: References) -> str:
    lines = f" @ {', '.join(map(location, node.locs))}" if node.locs else ""
    return f"{_operation(node, shown, references)}{lines}"


def _operation(node: Node, shown: Mapping[Value | None, str], references: References | None) -> str:
    results = node.results
    parts = [f"{', '.join([shown[value] for value in results])} = {word(node.op, OPERATOR)}"]
    if operands := node.operands:
        parts.append(", ".join([shown[value] for value in operands]))
    if node.attrs:
        parts.append(f"{{{attributes(node, references)}}}")
    parts += [":", ", ".join([str(value.type) for value in results])]
    if node.module is not None:
        parts.append(f"[{quoted(node.module)}]")
    if node.order is not None:
        parts.append(f"!{node.order}")
    return " ".join(parts)


def location(loc: Loc) -> str:
    """`file:line (scope)`, either of them left out where it is empty."""
    place = f"{quoted(loc.file)}:{loc.line}" if loc.file else ""
    return " ".join(part for part in (place, f"({quoted(loc.scope)})" if loc.scope or not place else "") if part)


def literal(value: Value) -> str:
    """A constant, written out."""
    if value.weight is None:
        raise TypeError(f"%{value.hint} is no constant")
    if isinstance(value.type, ScalarType):
        return repr(value.weight.data)
    return f"{value.type}({', '.join(map(number, value.weight.array.reshape(-1)))})"


def _weight_statement(value: Value) -> str:
    weight = value.weight
    assert weight is not None
    if _is_written_out(value):
        return f"constant {literal(value)}"
    flags = ["trainable"] * weight.trainable + ["transient"] * (not weight.persistent)
    paths = [", ".join(map(quoted, weight.paths))] if weight.paths else []
    return " ".join(["weight", *paths, ":", str(value.type), f"#{weight.digest}", *flags])


def attributes(node: Node, references: References | None = None) -> str:
    """`name=value, …`, by name."""
    return ", ".join(f"{word(name)}={attribute(value, references)}" for name, value in sorted(node.attrs.items()))


def attribute(value: Any, references: References | None = None) -> str:
    """An attribute's value as the reader takes it.

    Without `references`, for people, encodings are spelled out, and a body is shown by its name and a hash of its text.
    """
    from qir.graph import Graph

    if isinstance(value, Graph):
        name = references.bodies[id(value)][1] if references else value.name
        digest = "" if references else f" #{hashlib.blake2b(str(value).encode(), digest_size=8).hexdigest()}"
        return f"@{quoted(name)}{digest}"
    names = references.encodings.of if references else None
    return write_value(value, lambda found: f"${quoted(names[found])}" if names else f"<{write_encoding(found, None)}>")


def _returned(graph: Graph, shown: Mapping[Value | None, str]) -> str:
    written = [shown[value] for value in graph.outputs]
    if graph.structure is None:
        return ", ".join(written)

    def arrange(part: Any) -> str:
        match part:
            case bool() | None | str() | int() | float():
                return attribute(part)
            case Port(index) if index < len(written):
                return written[index]
            case tuple():
                return f"({', '.join(map(arrange, part))}{',' * (len(part) == 1)})"
            case list():
                return f"[{', '.join(map(arrange, part))}]"
            case dict():
                return f"{{{', '.join(f'{attribute(k)}: {arrange(v)}' for k, v in part.items())}}}"
        raise QirError(f"the structure of {len(written)} outputs holds {part!r}")

    return arrange(graph.structure)
