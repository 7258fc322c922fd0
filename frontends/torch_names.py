"""The names that `torch.fx` gives to calls, for the calls that `torch.export` records, so that both importers agree."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import fx
from torch.fx.graph import _Namespace, _snake_case

from qir.facts import computes
from qir.frontends.torch_einops import einops_functions
from qir.frontends.torch_lowerings import plain_name
from qir.frontends.torch_spans import BEGIN
from qir.frontends.torch_whole import WHOLE
from qir.graph import Node

_OPERATORS = {
    "div": "truediv", "div_": "truediv", "__rdiv__": "truediv", "__rsub__": "sub", "__rpow__": "pow",
    "__rfloordiv__": "floordiv", "remainder": "mod", "__and__": "and_", "__or__": "or_",
}  # fmt: skip
"""What Python calls the operators that torch calls methods of these names."""


def called(name: str) -> str:
    """The name of a call of the function or method `name`, before numbers: `add` for `add_`."""
    return plain_name(name) or name


class CallNames:
    """Numbers the names of calls as `torch.fx` does, all in one namespace, but for calls that move data or sizes.

    Those compute nothing that is named, and the importers do not record the same of them.
    """

    def __init__(self, inputs: Sequence[str] = ()) -> None:
        self.space = _Namespace()
        self.calls: list[tuple[Node, str]] = []
        for name in inputs:
            self.space.create_name(name, None)

    def add(self, node: Node, name: str) -> None:
        """The next call, and its name without a number: of the function, or the path of the layer."""
        self.calls.append((node, _snake_case(name)))

    def add_traced(self, call: fx.Node, made: Sequence[Node]) -> None:
        """What a traced call of a function was made into: the last has its name, the parts of einops their own."""
        if call.target in einops_functions():
            for node in made:
                self.add(node, node.result.hint)
        elif made:
            name, _, number = call.name.rpartition("_")
            self.add(made[-1], name if name and number.isdigit() else call.name)

    def give(self) -> None:
        """Name the results of all calls that are left."""
        for node, name in self.calls:
            if not node.erased:
                counts = node.module is not None or computes(node)
                node.result.hint = self.space.create_name(name, None) if counts else name


class RecordedNames:
    """What the calls are named after that torch.export records."""

    def __init__(self, nodes: Sequence[fx.Node]) -> None:
        self.following = dict(pairwise(nodes))

    def of(self, node: fx.Node) -> str:
        """The name of what `node` is a part of, if it is the last part; else that of its own operator."""
        if node.target is WHOLE:
            return str(node.args[1]).rpartition(":")[0].replace(".", "_")
        if node.target is BEGIN:
            name = str(node.args[2]).partition(":")[0]
            return _OPERATORS.get(name) or called(name)
        after = self.following.get(node)
        spelled = node.meta.get("torch_fn")
        if spelled is None or (after is not None and after.meta.get("torch_fn") == spelled):
            name = getattr(node.target, "_opname", getattr(node.target, "__name__", str(node.target)))
        else:
            kind, _, name = spelled[1].rpartition(".")
            if kind != "builtin_function_or_method" and name in _OPERATORS:
                return _OPERATORS[name]
        return name[2:-2] if name.startswith("__") else called(name)
