"""The names that `torch.fx` gives to calls, for the calls that `torch.export` records, so that both importers agree."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import fx
from torch.fx.graph import _Namespace, _snake_case

from qir.frontends.torch_lowerings import plain_name

_OPERATORS = {
    "div": "truediv", "div_": "truediv", "__rdiv__": "truediv", "__rsub__": "sub", "__rpow__": "pow",
    "__rfloordiv__": "floordiv", "remainder": "mod", "__and__": "and_", "__or__": "or_",
}  # fmt: skip
"""What Python calls the operators that torch calls methods of these names."""


def called(name: str) -> str:
    """The name of a call of the function or method `name`, before numbers: `add` for `add_`."""
    return plain_name(name) or name


class CallNames:
    """Numbers the names of calls as `torch.fx` does: those of layers come from their paths, all in one namespace."""

    def __init__(self, nodes: Sequence[fx.Node]) -> None:
        self.space = _Namespace()
        self.following = dict(pairwise(nodes))

    def of_input(self, name: str) -> str:
        """The name of an argument of forward."""
        return self.space.create_name(name, None)

    def of_layer(self, path: str) -> str:
        """The name of a call of the layer at this path."""
        return self.space.create_name(_snake_case(path), None)

    def of_call(self, node: fx.Node) -> str:
        """The name of what `node` is a part of, if it is the last part; else that of its own operator."""
        after = self.following.get(node)
        spelled = node.meta.get("torch_fn")
        if spelled is None or (after is not None and after.meta.get("torch_fn") == spelled):
            name = getattr(node.target, "_opname", getattr(node.target, "__name__", str(node.target)))
        else:
            kind, _, name = spelled[1].rpartition(".")
            if kind != "builtin_function_or_method" and name in _OPERATORS:
                return self.space.create_name(_OPERATORS[name], None)
        bare = name[2:-2] if name.startswith("__") else called(name)
        return self.space.create_name(_snake_case(bare), None)
