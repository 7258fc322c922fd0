"""The operator `qir_lab.Squash`."""

from qir.ops import Attribute, OpDef, declare
from qir.traits import Clamps, Unary


def expand(graph, node):
    """limit * tanh(x / limit)."""
    limit = graph.constant(node.attr("limit"))
    inner = graph.add("Div", [node.operands[0], limit], like=node).result
    return graph.add("Mul", [graph.add("Tanh", [inner], like=node).result, limit], like=node).results


declare(
    OpDef(
        "qir_lab.Squash",
        ("x",),
        1,
        1,
        attributes={"limit": Attribute("FLOAT", 1.0)},
        traits=(Unary(), Clamps(lambda node: (-node.attr("limit"), node.attr("limit")))),
        expand=expand,
        infer=lambda node: [node.operands[0].type],
        doc="x, bounded smoothly by the limit.",
    )
)
