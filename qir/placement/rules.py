"""Rules files: exceptions to a target profile or an AIMET config, for mixed precision and for what stays in float.

    [[rule]]                        # every rule names what it is for ...
    layer = "encoder.layers.0.*"    # a glob on the paths of layers
    op = ["MatMul", "Gemm"]         # operators; with both, both have to match
    activation = "u16"              # ... and what holds for it: the dtype of what the operators read and write,
    weight = "i4"                   # of their weights,
    bias = "float"                  # and of their biases; "float" means not quantized
    symmetric = true                # of the activations
    per_channel = false             # of the weights

    [[rule]]
    tensor = "logits"               # a glob on the names that tensors have in the graph's text
    activation = "float"

Where two rules say something about the same setting, the later one counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from qir.errors import QirError
from qir.ops import definition
from qir.placement.placement import Grid, Parameter, Placement, Rule

KEYS: dict[str, type] = {
    "layer": str, "op": list, "tensor": str, "activation": str, "weight": str, "bias": str, "symmetric": bool,
    "per_channel": bool,
}  # fmt: skip


def read_rules(file: str, placement: Placement) -> list[Rule]:
    """The rules in a TOML file, ranked above those of `placement`.

    Raises QirError, with the file and the number of the rule, for what can not be read or means nothing.
    """
    import tomllib

    path = Path(file)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise QirError(f"can not read {path}: {error.strerror}", stage="rules") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise QirError(f"{path.name} is not TOML: {error}", stage="rules") from None
    rules = data.get("rule")
    if set(data) != {"rule"} or not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise QirError(f"{path.name} holds no rules", stage="rules", help="each rule is a table [[rule]]")
    rank = 1 + max((rule.rank for rule in placement.rules), default=0)
    return [
        _rule(f"{path.name}: rule {number}", rank + number, rule, placement) for number, rule in enumerate(rules, 1)
    ]


def _rule(source: str, rank: int, data: Mapping[str, Any], placement: Placement) -> Rule:
    ops = [data["op"]] if isinstance(data.get("op"), str) else data.get("op")
    given = data if ops is None else {**data, "op": ops}
    _check(source, given)
    for op in ops or ():
        _known(source, op)
    activation, bias = given.get("activation"), given.get("bias")
    per_weight = {name: _parameter(source, given[name]) for name in ("weight", "bias") if name in given}
    if activation == "float" and "weight" not in given and "tensor" not in given:
        return Rule(source, rank, _ops(ops), given.get("layer"), off="a rule keeps it in float")
    if bias not in (None, "float"):
        per_weight["bias"] = Parameter(True, placement.parameters["bias"].over(_grid(source, str(bias))))
    grid = Grid() if activation in (None, "float") else _grid(source, str(activation))
    return Rule(
        source,
        rank,
        _ops(ops),
        given.get("layer"),
        given.get("tensor"),
        off="a rule keeps it in float" if activation == "float" and "tensor" in given else None,
        reads=False if activation == "float" else None,
        writes="never" if activation == "float" else None,
        activation=Grid(symmetric=given.get("symmetric")).over(grid),
        parameters=per_weight,
        per_channel=given.get("per_channel"),
    )


def _check(source: str, data: Mapping[str, Any]) -> None:
    """Raise QirError unless the rule says for what it is, and something about it."""
    for key, value in data.items():
        if key not in KEYS:
            near = get_close_matches(key, KEYS, 1)
            help = f"did you mean {near[0]!r}?" if near else f"a rule has {', '.join(KEYS)}"
            raise QirError(f"{source}: there is no key {key!r}", stage="rules", help=help)
        if not isinstance(value, KEYS[key]) or (isinstance(value, list) and not all(type(v) is str for v in value)):
            raise QirError(f"{source}: {key} is not {value!r}", stage="rules", help=f"{key} is {KEYS[key].__name__}")
    chosen = {"layer", "op", "tensor"} & set(data)
    if not chosen or not set(data) - chosen:
        missing = "says nothing about what it matches" if chosen else "does not say what it is for"
        raise QirError(f"{source} {missing}", stage="rules", help=f"a rule has {', '.join(KEYS)}")
    if "tensor" in chosen and (len(chosen) > 1 or not set(data) - chosen <= {"activation", "symmetric"}):
        raise QirError(f"{source}: a tensor has an activation grid alone", stage="rules",
                       help="write a rule of its own for the layer")  # fmt: skip


def _known(source: str, op: str) -> None:
    try:
        definition(op)
    except QirError as error:
        raise QirError(f"{source}: {error.message}", stage="rules", help=error.help) from None


def _ops(ops: list[str] | None) -> frozenset[str] | None:
    return None if ops is None else frozenset(ops)


def _parameter(source: str, dtype: str) -> Parameter:
    return Parameter(False) if dtype == "float" else Parameter(True, _grid(source, dtype))


def _grid(source: str, dtype: str) -> Grid:
    try:
        return Grid.of(dtype)
    except QirError as error:
        raise QirError(f"{source}: {error.message}", stage="rules", help=error.help) from None
