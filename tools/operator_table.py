"""The table of operators on the documentation site: what reads and writes each, read from the registries themselves."""

from __future__ import annotations

import inspect
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import CodeType
from typing import Any

from onnx import defs

from qir.ops import COMPOSITES, OpDef, definition
from qir.placement.targets import target, target_names

Spellings = Mapping[str, list[str]]
"""For each operator, the calls of a framework that become it."""


@cache
def operators() -> list[OpDef]:
    """The whole vocabulary: ONNX's operators, then those of qir and of runtimes."""
    definition("Relu")
    current = {schema.name for schema in defs.get_all_schemas() if schema.domain == "" and not schema.deprecated}
    return [definition(name) for name in sorted(current)] + [COMPOSITES[name] for name in sorted(COMPOSITES)]


def traits_of(operator: OpDef) -> str:
    """The names of the operator's traits."""
    return ", ".join(type(trait).__name__ for trait in operator.traits)


@cache
def names() -> frozenset[str]:
    """The name of every operator."""
    return frozenset(operator.name for operator in operators())


def lowered(table: Mapping[Any, Callable[..., Any]], name_of: Callable[[Any], str]) -> Spellings:
    """For each operator, the spellings whose lowering names it."""
    found: dict[str, list[str]] = defaultdict(list)
    for spelling, lowering in table.items():
        for op in names().intersection(strings_in(lowering)):
            found[op].append(name_of(spelling))
    return {op: sorted(set(calls), key=_plainness) for op, calls in found.items()}


def _plainness(name: str) -> tuple[bool, bool, int, str]:
    """Functions before methods, short names before long ones."""
    return "__" in name, name.startswith("Tensor."), len(name), name


def strings_in(function: Callable[..., Any]) -> set[str]:
    """The strings in a function; where it has none that is an operator, those of the functions that it calls, too."""
    own = set(_strings(function))
    if own & names():
        return own
    called = (function.__globals__.get(name) for name in function.__code__.co_names)
    helpers = [
        helper for helper in called if inspect.isfunction(helper) and helper.__module__.startswith("qir.frontends")
    ]
    return own.union(*(_strings(helper) for helper in helpers))


def _strings(function: Any) -> Iterator[str]:
    for cell in function.__closure__ or ():
        if isinstance(cell.cell_contents, str):
            yield cell.cell_contents
        elif inspect.isfunction(cell.cell_contents):
            yield from _strings(cell.cell_contents)
    codes = [function.__code__]
    while codes:
        for constant in codes.pop().co_consts:
            if isinstance(constant, str):
                yield constant
            elif isinstance(constant, CodeType):
                codes.append(constant)


def torch_name(spelling: Any) -> str:
    """How a user writes the call."""
    from torch.overrides import resolve_name

    if isinstance(spelling, str):
        return spelling
    if inspect.isclass(spelling):
        return f"{spelling.__module__.partition('.modules')[0]}.{spelling.__name__}"
    name = str(resolve_name(spelling) or f"{spelling.__module__}.{spelling.__name__}")
    return name.removeprefix("torch._C._nn.").replace("_operator.", "operator.")


def keras_name(spelling: Any) -> str:
    """How a user writes the call: of `keras.src.ops.numpy`, say, the package `ops` is public."""
    if isinstance(spelling, str):
        return spelling
    package = spelling.__module__.removeprefix("keras.src.").partition(".")[0]
    return f"keras.{package}.{spelling.__name__}"


def in_torch(operator: OpDef) -> str:
    """What the torch backend computes the operator with."""
    from qir.backends import torch_module  # noqa: F401  (it fills the tables)
    from qir.backends.torch_emissions import EMISSIONS
    from qir.backends.torch_onnx import BODIES
    from qir.backends.torch_onnx_emissions import FUNCTIONS

    ways = [(EMISSIONS, "torch's own"), (FUNCTIONS, "a function"), (BODIES, "modules")]
    found = [way for table, way in ways if operator.name in table]
    if not found and operator.schema is not None:
        whole = not operator.schema.has_function and not operator.schema.has_context_dependent_function
        found = ["onnxruntime" if whole else "by expansion"]
    return ", or ".join(found)


def in_keras(operator: OpDef) -> str:
    """Whether the Keras backend computes the operator, as simulators need it."""
    from qir.backends.keras_operators import COMPUTED

    return "a function" if operator.name in COMPUTED else ""


def in_onnx(operator: OpDef) -> str:
    """How the ONNX backend writes the operator."""
    if operator.schema is not None:
        return f"opset {operator.schema.since_version}"
    if operator.name == "qir.Quantize":
        return "Q/DQ"
    return "expanded" if operator.expand is not None else ""


def integer_on(operator: OpDef) -> str:
    """The targets with an integer kernel for the operator, or that move its integers."""
    profiles = [target(name) for name in target_names()]
    return ", ".join(p.name for p in profiles if operator.name in p.integer | p.same_grid)


def entry(spellings: list[str]) -> str:
    """The plainest spellings, and how many more there are."""
    shown = ", ".join(f"`{name}`" for name in spellings[:2])
    return f"{shown} and {len(spellings) - 2} more" if len(spellings) > 2 else shown


def rows(chosen: Callable[[OpDef], bool]) -> Iterator[list[str]]:
    """A row for every chosen operator: its name, traits, calls in torch and Keras, emissions, integer kernels."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    from qir.frontends.keras_table import lowers as of_keras
    from qir.frontends.torch_table import lowers as of_torch

    torch, keras = lowered(of_torch.table, torch_name), lowered(of_keras.table, keras_name)
    for operator in filter(chosen, operators()):
        sources = [entry(spellings.get(operator.name, [])) for spellings in (torch, keras)]
        backends = [in_torch(operator), in_keras(operator), in_onnx(operator), integer_on(operator)]
        yield [f"`{operator.name}`", traits_of(operator), *sources, *backends]
