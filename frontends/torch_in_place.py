"""In-place calls of an exported program: who reads what they changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import fx

from qir.errors import QirError
from qir.frontends.torch_aten import aten
from qir.frontends.torch_views import SharedMemory
from qir.graph import Value

if TYPE_CHECKING:
    from qir.frontends.torch_export import ProgramImporter


def overwrite(importer: ProgramImporter, node: fx.Node, target: Any, result: Any) -> None:
    """From here on, whoever reads what an in-place call changed reads its result. Raises QirError where that is state.

    So do those who read views of it, or what it is a view of. Raises InPlaceOnView where that can not be told.
    """
    changed = node.args[0]
    if not isinstance(target, Value) or not isinstance(result, Value) or not isinstance(changed, fx.Node):
        return
    shared = SharedMemory(importer, node)
    state = importer.known[shared.bases[-1]]
    if isinstance(state, Value) and state.weight is not None and state.weight.paths:
        raise QirError(
            f"the model changes its state {state.weight.paths[0]} in forward", result.node, stage="import",
            help="change it outside of forward, or keep the module that does it whole: modules_to_exclude=[…]",
        )  # fmt: skip
    if shared.bases[-1].op == "placeholder" and len(importer.position[shared.bases[-1]]) > 1:
        raise QirError("a block under no_grad changes a tensor in place that is made outside of it", result.node,
                       stage="import", help="compute a new tensor in the block")  # fmt: skip
    shared.write(result)


def puts_back(node: fx.Node, target: Any, source: Any = None, *options: Any) -> bool:
    """Whether the call copies into a tensor what it holds already, put into its own dtype at most."""
    if node.target is not aten.copy_.default or not isinstance(source, Value):
        return False
    while source.node is not None and source.node.op == "Cast" and source.type.dtype == target.type.dtype:
        source = source.node.operands[0]
    return source is target
