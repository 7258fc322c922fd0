"""Makes the placement that `insert-quantizers` reads from its options."""

from __future__ import annotations

from dataclasses import replace

from qir.errors import QirError
from qir.placement.placement import FLOATS, Grid, Parameter, Placement, Rule
from qir.placement.targets import target

DEFAULT_TARGET = "ort-x86-vnni"
"""The target when neither a target nor a config is given."""


def placement_of(
    target_name: str | None,
    config: str | None,
    rules: str | None,
    output_bw: int | None,
    param_bw: int | None,
    data_type: str | None,
    per_channel: bool | None,
    exclude: tuple[str, ...] = (),
) -> Placement:
    """The placement of a profile or of an AIMET config, with a rules file over it, and layers that stay in float.

    A width of 32 leaves what it is for in float. Raises QirError for options and files that say nothing sensible.
    """
    if config is not None and target_name is not None:
        raise QirError("both a config and a target say where quantizers go", help="give one of them")
    activation, weight = _grid(output_bw, data_type, "output_bw"), _grid(param_bw, data_type, "param_bw")
    if config is None:
        made = target(target_name or DEFAULT_TARGET).placement(activation, weight, per_channel)
    else:
        from qir.placement.aimet_config import placement

        made = placement(config, activation, weight, per_channel)
    if rules is not None:
        from qir.placement.rules import read_rules

        made = replace(made, rules=(*made.rules, *read_rules(rules, made)))
    if output_bw == 32:
        made = replace(made, inputs=None, outputs=None)
    excluded = [Rule(f"exclude={glob}", 1 << 20, layer=glob, off="it is excluded") for glob in exclude]
    return replace(made, rules=(*made.rules, *excluded, *_left_out(output_bw, param_bw)))


def _grid(bits: int | None, data_type: str | None, option: str) -> Grid:
    if bits is not None and bits != 32 and not 2 <= bits <= 16:
        raise QirError(f"there is no {option} of {bits} bits", help="give 2 to 16 bits, or 32 for float")
    if data_type != "float":
        return Grid(None if data_type is None else "int", None if bits == 32 else bits)
    if bits not in (None, 8, 16, 32):
        raise QirError(f"there is no float format of {bits} bits", help="give 8 or 16 bits")
    return Grid(FLOATS[8 if bits == 8 else 16])


def _left_out(output_bw: int | None, param_bw: int | None) -> list[Rule]:
    """The rules that leave tensors or parameters of 32 bits in float."""
    rules = []
    if output_bw == 32:
        rules.append(Rule("output_bw=32", 1 << 20, layer="*", general=True, reads=False, writes="never"))
    if param_bw == 32:
        rules.append(Rule("param_bw=32", 1 << 20, layer="*", general=True, parameters={"*": Parameter(False)}))
    return rules
