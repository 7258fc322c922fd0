"""The vocabulary: what is known about each operator.

Standard ONNX operators come from `onnx.defs`, newest version; composites (`qir.`) and integer operators of runtimes
(`com.microsoft.`) from the declarations in `qir.operators`; any other name with a dot is opaque.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from onnx import AttributeProto, defs, helper

from qir.attributes import TRAINING, Body
from qir.encodings.encoding import Encoding
from qir.errors import QirError
from qir.extensions import load_modules
from qir.operators.opaque_calls import traits_of_opaque
from qir.traits import Composed, Trait

if TYPE_CHECKING:
    from qir.graph import Graph, Node, Value
    from qir.types import Type

VOCABULARY_OPSET: int = defs.onnx_opset_version()
"""The opset whose meaning the standard operators have: the newest that the installed `onnx` knows."""

T = TypeVar("T", bound=Trait)
KINDS: dict[str, tuple[type, ...]] = {
    "INT": (bool, int), "FLOAT": (int, float), "STRING": (str,), "TENSOR": (np.ndarray,), "GRAPH": (Body,),
    "INTS": (int,), "FLOATS": (int, float), "STRINGS": (str,), "GRAPHS": (Body,), "ENCODING": (Encoding,),
    "ANY": (object,),
}  # fmt: skip
"""Which Python types each kind of attribute takes (each element, for the plural kinds)."""


@dataclass(frozen=True)
class Attribute:
    """One attribute of an operator: its kind (a key of KINDS) and its default, None when it has none."""

    kind: str
    default: Any = None
    required: bool = False


Expansion = Callable[["Graph", "Node"], "Sequence[Value]"]


@dataclass(frozen=True)
class OpDef:
    """What is known about one operator.

    `operands` names the operands; `variadic` says that the last one repeats. `max_operands` is None without a limit.
    `expand` adds the equal nodes in simpler operators and returns the values that stand for the results.
    `infer` types the results where the expansion would be too slow to ask.
    """

    name: str
    operands: tuple[str, ...] = ()
    min_operands: int = 0
    max_operands: int | None = None
    min_results: int = 1
    max_results: int | None = 1
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    traits: tuple[Trait, ...] = ()
    schema: Any = None
    expand: Expansion | None = None
    infer: Callable[[Node], Sequence[Type]] | None = None
    opaque: bool = False
    doc: str = ""

    def trait(self, kind: type[T]) -> T | None:
        """The operator's trait of this kind, or None."""
        for trait in self.traits:
            if isinstance(trait, kind):
                return trait
        return None

    def default(self, name: str) -> Any:
        """The default of attribute `name`, None when it has none. Raises QirError when there is no such attribute."""
        if name not in self.attributes:
            raise QirError(f"{self.name} has no attribute {name!r}", help=self._it_has())
        return self.attributes[name].default

    def normalize(self, attrs: Mapping[str, Any]) -> dict[str, Any]:
        """`attrs` sorted by name, sequences as tuples, without those that equal their default."""
        if self.opaque:
            return {name: _plain(value) for name, value in sorted(attrs.items())}
        result = {}
        for name, value in sorted(attrs.items()):
            default = self.default(name)
            kept = _typed(self.name, name, self.attributes[name].kind, value)
            if not (default is not None and type(kept) is type(default) and _same(kept, default)):
                result[name] = kept
        for name, attribute in self.attributes.items():
            if attribute.required and name not in result:
                raise QirError(f"{self.name} needs the attribute {name!r}", help=self._it_has())
        return result

    def check_operands(self, node: Node, operands: Sequence[Value | None]) -> None:
        """Raise QirError unless the operator takes these many operands, those not counted that its bodies capture."""
        count = len(operands) - node.captured
        if count < self.min_operands:
            missing = ", ".join(self.operands[max(count, 0) : self.min_operands])
            raise QirError(f"{self.name} reads at least {self.min_operands} operands; {missing} is missing")
        if self.max_operands is not None and count > self.max_operands:
            raise QirError(f"{self.name} reads at most {self.max_operands} operands and was given {count}")

    def _it_has(self) -> str:
        return f"it has: {', '.join(self.attributes) or 'none'}"


def _same(a: Any, b: Any) -> bool:
    return np.array_equal(a, b) if isinstance(a, np.ndarray) else bool(a == b)


def _plain(value: Any) -> Any:
    """`value` with the numpy numbers in it made Python's. Lists stay lists: their kind matters to an opaque call."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    if type(value) is dict:
        return {key: _plain(item) for key, item in value.items()}
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"a {type(value).__name__}"


def _typed(op: str, name: str, kind: str, given: Any) -> Any:
    """`value` as an attribute of `kind` is kept. Raises QirError when it is of another type."""
    plural = kind.endswith("S")
    if plural and isinstance(given, list | tuple | np.ndarray):
        return tuple(_typed(op, name, kind[:-1], item) for item in given)
    value: Any = given.item() if isinstance(given, np.generic) else given
    fits = isinstance(value, KINDS[kind]) or value is TRAINING
    if plural or not fits:
        raise QirError(f"attribute {name!r} of {op} is of kind {kind}; {_shown(value)} is not")
    if kind == "FLOAT":
        return float(value)
    return int(value) if kind == "INT" and value is not TRAINING else value


DECLARATIONS = (
    "composites", "functions", "moves", "sums", "elements", "sorts", "scatter", "shapes", "computed_sizes",
    "products", "grouped_products", "windows", "counts", "attention", "multihead", "transformer", "recurrent",
    "integer", "qdq",
)  # fmt: skip
"""The modules of `qir.operators` that declare operators; the others there help them."""

ENTRY_POINTS = "qir.operators"
"""The entry point group in which a package lists the modules that declare its own: `my-ops = "my_package.ops"`."""

COMPOSITES: dict[str, OpDef] = {}
_DECLARED_BY: dict[str, str] = {}


def declare(operator: OpDef) -> OpDef:
    """Add an operator to the vocabulary. Raises QirError when the name is taken, or in no domain of the caller's."""
    name, by = operator.name, str(sys._getframe(1).f_globals.get("__name__"))
    domain, _, plain = name.rpartition(".")
    help = f"call it {by.partition('.')[0].strip('_')}.{plain}"
    if not domain or (domain == "qir" and by.partition(".")[0] != "qir"):
        owner = f"the domain {domain!r} is that of qir itself" if domain else "names without a dot are ONNX's own"
        raise QirError(f"{by} can not declare the operator {name}: {owner}", help=help)
    if name in COMPOSITES:
        raise QirError(f"the operator {name} is already declared, by {_DECLARED_BY[name]}", help=help)
    COMPOSITES[name], _DECLARED_BY[name] = operator, by
    definition.cache_clear()
    return operator


@cache
def _load_declarations() -> None:
    for module in DECLARATIONS:
        import_module(f"qir.operators.{module}")
    load_modules(ENTRY_POINTS)


@cache
def definition(op: str) -> OpDef:
    """What is known about the operator `op`. Raises QirError when a name without a dot is no ONNX operator."""
    _load_declarations()
    if op in COMPOSITES:
        return COMPOSITES[op]
    if op.startswith("qir."):
        near = get_close_matches(op, COMPOSITES, 1)
        raise QirError(f"no operator is called {op!r}", help=f"did you mean {near[0]!r}?" if near else None)
    if "." in op:
        return OpDef(op, max_operands=None, max_results=None, opaque=True, traits=traits_of_opaque(op))
    try:
        return _from_schema(defs.get_schema(op, VOCABULARY_OPSET))
    except defs.SchemaError:
        known = {schema.name for schema in defs.get_all_schemas() if schema.domain == ""}
        near = get_close_matches(op, sorted(known), 1)
        help = f"did you mean {near[0]!r}?" if near else "operators of other domains have a dot in their name"
        raise QirError(f"no operator is called {op!r} in ONNX opset {VOCABULARY_OPSET}", help=help) from None


@cache
def composed_families() -> list[str]:
    """The families of composed operators, sorted."""
    from qir.onnx_traits import TRAITS

    _load_declarations()
    known = (*(operator.traits for operator in COMPOSITES.values()), *TRAITS.values())
    return sorted({t.family for traits in known for t in traits if isinstance(t, Composed)})


def _from_schema(schema: Any) -> OpDef:
    from qir.onnx_traits import TRAITS

    endless = 2**31 - 1
    return OpDef(
        name=schema.name,
        operands=tuple(formal.name for formal in schema.inputs),
        min_operands=schema.min_input,
        max_operands=None if schema.max_input >= endless else schema.max_input,
        min_results=schema.min_output,
        max_results=None if schema.max_output >= endless else schema.max_output,
        attributes={name: _attribute(proto) for name, proto in sorted(schema.attributes.items())},
        traits=TRAITS.get(schema.name, ()),
        schema=schema,
        doc=schema.doc,
    )


def _attribute(proto: Any) -> Attribute:
    default = proto.default_value
    value = helper.get_attribute_value(default) if default.type != AttributeProto.UNDEFINED else None
    if isinstance(value, bytes):
        value = value.decode()
    elif isinstance(value, list):
        value = tuple(item.decode() if isinstance(item, bytes) else item for item in value)
    kind = str(proto.type).rpartition(".")[2]
    if kind in ("FLOAT", "FLOATS"):
        value = shortest(value)
    return Attribute(kind if kind in KINDS else "ANY", value, proto.required)


def shortest(value: Any) -> Any:
    """A float that ONNX stores in 32 bits as the shortest decimal that stands for it (0.01, not 0.00999999977648…).

    Tuples element by element, anything else as it is.
    """
    if isinstance(value, tuple):
        return tuple(map(shortest, value))
    return float(str(np.float32(value))) if isinstance(value, float) else value
