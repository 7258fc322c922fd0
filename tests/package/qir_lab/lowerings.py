"""How `squash` comes from torch and goes back."""

from qir.backends.torch_emissions import call, emits
from qir.frontends.torch_lowerings import lowers
from qir_lab.functions import squash


@lowers(squash)
def lower_squash(build, x, limit=1.0):
    """One operator."""
    return build("qir_lab.Squash", x, limit=limit)


@emits("qir_lab.Squash")
def emit_squash(node):
    """The function itself."""
    return call(squash, node.operands[0], limit=node.attr("limit"))
