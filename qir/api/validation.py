"""`ModelValidator`: what stands between a torch model and quantization, as data and as a table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from qir.api.preparation import imported, importers
from qir.api.prepare_arguments import checked_model, examples_of
from qir.api.same_outputs import Examples
from qir.errors import QirError
from qir.facts import FUNCTIONALS_LIFTED, MODULES_UNROLLED
from qir.graph import Graph, Node
from qir.pipeline import Pipeline

if TYPE_CHECKING:
    from torch import nn

Check = Callable[..., bool]
"""A function of a model and its input that says whether the model passes."""


@dataclass(frozen=True)
class Finding:
    """One thing about a model that a user may want to change, and what a pass does about it.

    An error keeps `validate_model` from returning True. `line` is the user's; `module` is the path of the layer, or of
    the module whose forward makes the call.
    """

    rule: str
    severity: Literal["error", "warning"]
    module: str
    line: str
    message: str
    fix: str


class ModelValidator:
    """Checks a torch model against the guidelines: every computation a layer, every layer called once.

    `prepare_model` brings a model into that form.
    """

    checks: ClassVar[list[Check]] = []

    @staticmethod
    def add_check(check: Check) -> None:
        """Let `validate_model` also call `check(model, model_input)`, with those keywords that it accepts."""
        ModelValidator.checks.append(check)

    @staticmethod
    def validate_model(model: nn.Module, model_input: Any, **kwargs: Any) -> bool:
        """Print the findings as a table; whether none of them is an error.

        `model_input` is a tensor, a sequence of positional arguments or a mapping of keyword arguments. Every other
        argument goes to the checks that accept it; `layers_to_exclude` names modules whose inside is not looked at.
        """
        found = ModelValidator.findings(model, model_input, **_accepted(ModelValidator.findings, kwargs))
        for check in ModelValidator.checks:
            if not check(model, model_input, **_accepted(check, kwargs)):
                doc = (inspect.getdoc(check) or "the model does not pass").splitlines()[0]
                found.append(Finding(getattr(check, "__name__", str(check)), "error", "", "", doc, ""))
        _show(found)
        return all(finding.severity != "error" for finding in found)

    @staticmethod
    def findings(model: nn.Module, model_input: Any, layers_to_exclude: Sequence[nn.Module] = ()) -> list[Finding]:
        """What the rules find, in the order of the calls.

        `importable`: torch.fx or torch.export takes the model. `traceable`: torch.fx does, so no example inputs are
        needed. `functional-call`: a call of a function for which torch.nn has a layer. `missing-module`: any other
        computation without a layer. `reused-layer`: a layer called again. `opaque-call`: a call that nothing lowers.
        """
        examples = examples_of(model_input)
        model = checked_model(model, examples)
        graph, found = _imported(model, examples, layers_to_exclude)
        return found if graph is None else found + list(_about(graph, _paths(model, layers_to_exclude)))


def _accepted(check: Callable[..., Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Those keywords that the check has a parameter for."""
    parameters = inspect.signature(check).parameters
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return {name: value for name, value in keywords.items() if takes_all or name in parameters}


def _paths(model: nn.Module, layers: Sequence[nn.Module]) -> list[str]:
    return [path for path, module in model.named_modules() if any(module is layer for layer in layers)]


def _imported(model: nn.Module, examples: Examples, whole: Sequence[nn.Module]) -> tuple[Graph | None, list[Finding]]:
    """The graph, if an importer takes the model, and what the others say."""
    found: list[Finding] = []
    ways: dict[str, Callable[[], Graph]] = {}
    for name, read in importers(model, examples, whole):
        ways.setdefault(name, read)
    for name, read in ways.items():
        try:
            return imported(name, read), found
        except QirError as error:
            line = (error.snippet or "").splitlines()
            fix = "prepare_model with example_inputs tries torch.export" if name == "torch.fx" else ""
            rule, severity = ("traceable", "warning") if name == "torch.fx" else ("importable", "error")
            found.append(Finding(rule, severity, "", line[0] if line else "", error.message, error.help or fix))  # type: ignore[arg-type]
    if all(finding.severity != "error" for finding in found):
        found.append(Finding("importable", "error", "", "", "no importer takes the model", "see the other findings"))
    return None, found


def _about(graph: Graph, excluded: Sequence[str]) -> Iterator[Finding]:
    """What the rules find in a graph, which the passes of `prepare_model` change."""
    functional = list(FUNCTIONALS_LIFTED.check(graph))
    lines = {node: number for number, node in enumerate(graph.nodes())}
    Pipeline.parse("lift-functionals").run(graph)
    again = {node: node.module or "" for node in MODULES_UNROLLED.check(graph)}
    Pipeline.parse("unroll-modules").run(graph)
    called, reused = set(functional), set(again)
    for node in sorted(lines, key=lines.__getitem__):
        if any(_inside(node.scope, path) or _inside(node.module or "", path) for path in excluded):
            continue
        if node in called:
            yield _functional_call(node)
        if node in reused:
            fix = f"unroll-modules makes it the layer {node.module}, its weights tied"
            yield _finding("reused-layer", "error", node, f"{again[node]} is called again", fix, again[node])
        if node.definition.opaque:
            fix = "it runs as it is; nothing inside of it is quantized"
            yield _finding("opaque-call", "warning", node, f"{_name(node)} stays as it is: {node.why_opaque}", fix)


def _finding(
    rule: str, severity: Literal["error", "warning"], node: Node, message: str, fix: str, module: str | None = None
) -> Finding:
    line = str(node.loc) if node.loc is not None and node.loc.file else ""
    return Finding(rule, severity, node.scope if module is None else module, line, message, fix)


def _functional_call(node: Node) -> Finding:
    layer = _layer_of(node)
    fix = f"lift-functionals makes it the layer {node.module}"
    if layer:
        return _finding("functional-call", "error", node, f"{_name(node)} is a call, not a layer", f"{fix}, a {layer}")
    return _finding("missing-module", "error", node, f"{_name(node)} has no layer", fix)


def _layer_of(node: Node) -> str:
    """The torch.nn layer that computes what the node does; nothing where there is none."""
    import qir.backends.torch_module  # noqa: F401  (it fills the table)
    from qir.backends.torch_emissions import EMISSIONS

    if node.op not in EMISSIONS:
        return ""
    target = type(EMISSIONS[node.op](node).target)
    return f"torch.nn.{target.__name__}" if target.__module__.startswith("torch.nn.modules") else ""


def _name(node: Node) -> str:
    return node.op.removeprefix("qir.")


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}.")


# -- printing --------------------------------------------------------------------------------------------------------


def _show(found: Sequence[Finding]) -> None:
    titles = [field.name for field in fields(Finding)]
    if not found:
        print("the model follows the guidelines: every computation is a layer that is called once")
    elif find_spec("rich"):
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*titles, title=f"{len(found)} findings")
        for finding in found:
            style = "red" if finding.severity == "error" else "yellow"
            table.add_row(*(Text(cell, style if cell == finding.severity else "") for cell in astuple(finding)))
        Console().print(table)
    else:
        rows = [titles, *(list(astuple(finding)) for finding in found)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        print("\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows))
